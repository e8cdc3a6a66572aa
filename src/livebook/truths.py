"""The public truth sets in two tables: what they are and how quiet, and how to know them again."""

from collections.abc import Iterator

import ntk_influence as ni


def described() -> Iterator[str]:
    """The model of each set, its noise, and what that leaves for an estimate to reach."""
    yield "| set | model | left out | floor | above it | ceiling | goes on |"
    yield "|---|---|---|---|---|---|---|"
    for truth in map(ni.truth.load, ni.truth.NAMES):
        found = ni.truth.score(truth.influence, truth)
        noise, size = truth.floor, truth.changes.square().mean(dim=1).sqrt()
        floor = f"{float(noise.norm() / size.norm()):.2g}" if truth.second is not None else "exact"
        ceiling = ", ".join(f"{found[f'{key}_ceiling']:.3f}" for key in ("pearson", "spearman"))
        on = truth.provenance.get("moves_on")
        row = (truth.name, _model(truth.settings), f"{len(truth.left_out)} of {len(truth.train)}")
        row += (floor, f"{found['share_above']:.2f}", ceiling, f"{on:.2g}" if on else "")
        yield f"| {' | '.join(row)} |"


def _model(settings: dict) -> str:
    """The model of a set in words."""
    ridge = f"ridge {settings['ridge']:g}"
    if "width" not in settings:
        return f"kernel, infinite width, {ridge}"
    kink = f"kink smoothed over {settings['smoothing']:g} of the scale"
    kink = kink if settings["smoothing"] else "ReLU"
    how = f"{settings['method'].replace('_', ' ')}, {settings['steps']} steps"
    size = f"{settings['width']:,} units, scale {settings['scale']:g}, seed {settings['seed']}"
    return f"network, {kink}, {size}, {ridge}; {how}"


def known_again() -> Iterator[str]:
    """Version, origin and digest of each set."""
    yield "| set | version | computed | SHA-256 |"
    yield "|---|---|---|---|"
    for truth in map(ni.truth.load, ni.truth.NAMES):
        made = f"{truth.provenance['date']}, commit {truth.provenance['commit']}"
        parts = (truth.hash[k : k + 16] for k in range(0, 64, 16))
        digest = " ".join(f"`{part}`" for part in parts)
        yield f"| {truth.name} | {truth.version} | {made} | {digest} |"
