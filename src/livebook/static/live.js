// The mathematics of the live explorer: kernel ridge regression and gradient flow, in plain JavaScript.
const live = (() => {
  const dot = (a, i, b, j, n) => { // of n entries, from a[i] and from b[j] on
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, k = 0;
    for (; k + 3 < n; k += 4) {
      s0 += a[i + k] * b[j + k];
      s1 += a[i + k + 1] * b[j + k + 1];
      s2 += a[i + k + 2] * b[j + k + 2];
      s3 += a[i + k + 3] * b[j + k + 3];
    }
    for (; k < n; k++) s0 += a[i + k] * b[j + k];
    return s0 + s1 + s2 + s3;
  };

  // Images as numbers, without the pixels that are empty in all of them.
  const compact = (bytes, size) => {
    const used = [...Array(size).keys()].filter((k) => {
      for (let i = k; i < bytes.length; i += size) if (bytes[i]) return true;
      return false;
    });
    const pixels = new Float64Array((bytes.length / size) * used.length);
    for (let i = 0; i < pixels.length; i++) {
      pixels[i] = bytes[Math.floor(i / used.length) * size + used[i % used.length]];
    }
    return { pixels, size: used.length };
  };

  // Equation (4) between the images of `rows` and those of `columns`: K[i * columns.length + j].
  const kernel = ({ pixels, size }, rows, columns) => {
    const norm = (i) => Math.sqrt(dot(pixels, i * size, pixels, i * size, size));
    const [left, right] = [rows.map(norm), columns.map(norm)];
    const K = new Float64Array(rows.length * columns.length), same = rows === columns;
    rows.forEach((i, r) => columns.forEach((j, c) => {
      if (same && c > r) return;
      let u = dot(pixels, i * size, pixels, j * size, size) / (left[r] * right[c]);
      if (u > 1 - 16 * Number.EPSILON) u = 1; // there arccos keeps half of its digits
      const value = u * (Math.PI - Math.acos(u)) / (2 * Math.PI);
      K[r * columns.length + c] = value;
      if (same) K[c * columns.length + r] = value;
    }));
    return K;
  };

  // The convolutional kernel without pooling, all layers trained, between two images: `depth` windows
  // of 3 x 3 with zeros around the image. Every map has those zeros as a frame.
  const convolution = (bytes, side, depth) => {
    const wide = side + 2, across = new Float64Array(wide * wide), blank = () => new Float64Array(wide * wide);
    const places = Int32Array.from({ length: side * side }, (_, p) => (Math.floor(p / side) + 1) * wide + (p % side) + 1);
    const box = (from, to) => { // the mean over the window of each position
      for (let p = 1; p < wide * wide - 1; p++) across[p] = from[p - 1] + from[p] + from[p + 1];
      for (const p of places) to[p] = (across[p - wide] + across[p] + across[p + wide]) / 9;
    };
    const maps = Array.from({ length: bytes.length / side ** 2 }, (_, i) => {
      const image = bytes.subarray(i * side ** 2, (i + 1) * side ** 2), [pixels, square] = [blank(), blank()];
      const stretch = side / Math.sqrt(dot(image, 0, image, 0, side ** 2)); // to a mean square of one
      places.forEach((p, q) => { pixels[p] = stretch * image[q]; square[p] = pixels[p] ** 2; });
      const deviations = Array.from({ length: depth }, () => {
        const variance = blank();
        box(square, variance);
        square.set(variance);
        return variance.map(Math.sqrt);
      });
      return { pixels, deviations };
    });
    const [after, both, covariance, tangent] = [blank(), blank(), blank(), blank()];
    return (i, j) => {
      const [x, z] = [maps[i], maps[j]];
      for (const p of places) after[p] = both[p] = x.pixels[p] * z.pixels[p];
      for (let layer = 0; layer < depth; layer++) {
        const [sx, sz] = [x.deviations[layer], z.deviations[layer]];
        box(after, covariance);
        box(both, tangent); // the covariance, and the kernel of the layers below
        for (const p of places) {
          const scale = sx[p] * sz[p];
          if (scale === 0) { after[p] = both[p] = 0; continue; } // nothing but zeros in the window
          let u = covariance[p] / scale;
          if (u > 1 - 16 * Number.EPSILON) u = 1;
          const slope = (Math.PI - Math.acos(u)) / Math.PI;
          after[p] = scale * (slope * u + Math.sqrt((1 - u) * (1 + u)) / Math.PI);
          both[p] = after[p] + slope * tangent[p];
        }
      }
      return both.reduce((sum, v) => sum + v) / (2 * side ** 2);
    };
  };

  // K[i * columns.length + j] row by row; between two rows others may work, and hear what is done.
  const rowByRow = function* (pair, rows, columns) {
    const K = new Float64Array(rows.length * columns.length), same = rows === columns;
    for (let r = 0; r < rows.length; r++) {
      for (let c = 0; c < (same ? r + 1 : columns.length); c++) {
        K[r * columns.length + c] = pair(rows[r], columns[c]);
        if (same) K[c * columns.length + r] = K[r * columns.length + c];
      }
      yield same ? ((r + 1) / rows.length) ** 2 : (r + 1) / rows.length;
    }
    return K;
  };

  // What takes seconds, in pieces: the page answers in between.
  const inPieces = async (work, report) => {
    for (let since = performance.now(); ;) {
      const { value, done } = work.next();
      if (done) return value;
      if (performance.now() - since < 30) continue;
      report(value);
      await new Promise((go) => { setTimeout(go); });
      since = performance.now();
    }
  };

  // The rows and columns of K that are kept.
  const part = (K, n, kept) => {
    const m = kept.length, A = new Float64Array(m * m);
    kept.forEach((i, r) => kept.forEach((j, c) => { A[r * m + c] = K[i * n + j]; }));
    return A;
  };

  // L with A + ridge I = L L^T, row by row.
  const cholesky = (A, n, ridge) => {
    const L = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        const rest = A[i * n + j] + (i === j ? ridge : 0) - dot(L, i * n, L, j * n, j);
        L[i * n + j] = i === j ? Math.sqrt(rest) : rest / L[j * n + j];
      }
    }
    return L;
  };

  // P = (L L^T)^-1: row j of M holds column j of L^-1, from its diagonal on.
  const inverse = (L, n) => {
    const M = new Float64Array(n * n), P = new Float64Array(n * n);
    for (let j = 0; j < n; j++) {
      for (let i = j; i < n; i++) {
        M[j * n + i] = ((i === j ? 1 : 0) - dot(L, i * n + j, M, j * n + j, i - j)) / L[i * n + i];
      }
    }
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) P[i * n + j] = P[j * n + i] = dot(M, i * n + i, M, j * n + i, n - i);
    }
    return P;
  };

  const times = (A, n, x) => Float64Array.from({ length: n }, (_, i) => dot(A, i * n, x, 0, n));

  // Equations (6) and (9): dual, leverage, and of each test image the prediction and all changes.
  const atTheEnd = (P, n, ridge, y, tests) => {
    const dual = times(P, n, y);
    const leverage = dual.map((_, i) => 1 - ridge * P[i * n + i]);
    const shown = tests.map((k) => {
      const Pk = times(P, n, k);
      return { f: dot(k, 0, dual, 0, n), change: Pk.map((v, i) => (-v * dual[i]) / P[i * n + i]) };
    });
    return { leverage, shown };
  };

  // The change of a prediction when a group goes: -(k^T P)_S (P_SS)^-1 alpha_S.
  const withoutGroup = (P, n, y, k, group) => {
    const m = group.length, dual = times(P, n, y), Pk = times(P, n, k);
    const L = cholesky(part(P, n, group), m, 0);
    const solved = times(inverse(L, m), m, Float64Array.from(group, (i) => dual[i]));
    return -dot(Float64Array.from(group, (i) => Pk[i]), 0, solved, 0, m);
  };

  // A = U diag(s) U^T. Row j of U^T is the j-th eigenvector: Householder's reduction to a
  // tridiagonal matrix, then QR steps with Wilkinson's shift.
  const eigen = (A, n) => {
    const T = A.slice(), Ut = new Float64Array(n * n), s = new Float64Array(n), e = new Float64Array(n);
    for (let i = 0; i < n; i++) Ut[i * n + i] = 1;
    for (let k = 0; k < n - 2; k++) {
      const v = new Float64Array(n), p = new Float64Array(n), u = new Float64Array(n);
      for (let i = k + 1; i < n; i++) v[i] = T[k * n + i];
      const length = Math.sqrt(dot(v, 0, v, 0, n));
      if (length === 0) continue;
      v[k + 1] += v[k + 1] < 0 ? -length : length;
      const twice = 2 / dot(v, 0, v, 0, n);
      for (let i = k; i < n; i++) p[i] = twice * dot(T, i * n, v, 0, n);
      const half = (twice / 2) * dot(p, 0, v, 0, n);
      for (let i = k; i < n; i++) p[i] -= half * v[i];
      for (let i = k; i < n; i++) {
        const row = i * n, vi = v[i], pi = p[i];
        for (let j = k; j < n; j++) T[row + j] -= vi * p[j] + pi * v[j];
      }
      for (let i = k + 1; i < n; i++) for (let j = 0; j < n; j++) u[j] += v[i] * Ut[i * n + j];
      for (let i = k + 1; i < n; i++) {
        const row = i * n, factor = twice * v[i];
        for (let j = 0; j < n; j++) Ut[row + j] -= factor * u[j];
      }
    }
    for (let i = 0; i < n; i++) { s[i] = T[i * n + i]; e[i] = i < n - 1 ? T[i * n + i + 1] : 0; }
    const small = (i) => Math.abs(e[i]) <= Number.EPSILON * (Math.abs(s[i]) + Math.abs(s[i + 1]));
    for (let last = n - 1; last > 0;) {
      if (small(last - 1)) { e[--last] = 0; continue; }
      let first = last - 1;
      while (first > 0 && !small(first - 1)) first--;
      const gap = (s[last - 1] - s[last]) / 2, below = e[last - 1];
      const shift = s[last] - below ** 2 / (gap + (gap < 0 ? -1 : 1) * Math.hypot(gap, below));
      let x = s[first] - shift, z = e[first];
      for (let k = first; k < last; k++) {
        const r = Math.hypot(x, z), c = r ? x / r : 1, t = r ? z / r : 0;
        const a = s[k], b = s[k + 1], off = e[k], i = k * n, j = i + n;
        if (k > first) e[k - 1] = r;
        s[k] = c * c * a + 2 * c * t * off + t * t * b;
        s[k + 1] = t * t * a - 2 * c * t * off + c * c * b;
        e[k] = (c * c - t * t) * off + c * t * (b - a);
        if (k < last - 1) { x = e[k]; z = t * e[k + 1]; e[k + 1] *= c; }
        for (let q = 0; q < n; q++) {
          const above = Ut[i + q], under = Ut[j + q];
          Ut[i + q] = c * above + t * under;
          Ut[j + q] = c * under - t * above;
        }
      }
    }
    const U = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) U[i * n + j] = Ut[j * n + i];
    return { s, U, Ut };
  };

  // Nodes and weights of (1 - exp(-s)) / s = Re sum w / (z + s), on Weideman and Trefethen's parabola.
  const N = 28;
  const nodes = Array.from({ length: N / 2 }, (_, k) => {
    const angle = ((k + 0.5) * 2 * Math.PI) / N;
    const x = N * (0.1309 - 0.1194 * angle ** 2), y = N * 0.25 * angle;
    const dx = -2 * 0.1194 * N * angle, dy = 0.25 * N, size = (2 * Math.exp(x)) / (N * (x * x + y * y));
    const a = x * dx + y * dy, b = x * dy - y * dx; // conj(z) z'
    const c = Math.cos(y), d = Math.sin(y);
    return { x, y, wx: size * (d * a + c * b), wy: size * (d * b - c * a) };
  });

  // The same as `atTheEnd` at a time of the flow; the changes are those of the one image `chosen`.
  const atTime = ({ s, U, Ut }, n, ridge, y, tests, time, chosen) => {
    const a = s.map((v) => v + ridge), Uy = times(Ut, n, y);
    const fitted = a.map((v) => (v === 0 ? time : -Math.expm1(-v * time) / v));
    const squares = U.map((v) => v * v), rotated = tests.map((k) => times(Ut, n, k));
    const leverage = times(squares, n, s.map((v, j) => v * fitted[j]));
    const shown = rotated.map((k) => ({ f: dot(k, 0, fitted.map((v, j) => v * Uy[j]), 0, n) }));
    const change = new Float64Array(n), kU = rotated[chosen];
    for (const { x, y: height, wx, wy } of nodes) { // of each: P_ii, dual and P k, complex
      const size = a.map((v) => (v + x / time) ** 2 + (height / time) ** 2);
      const re = a.map((v, j) => (v + x / time) / size[j]), im = size.map((v) => -height / time / v);
      const both = (M, f) => [re, im].map((part) => times(M, n, part.map((v, j) => v * f(j))));
      const [Pr, Pi] = both(squares, () => 1), [dr, di] = both(U, (j) => Uy[j]);
      const [kr, ki] = both(U, (j) => kU[j]);
      for (let i = 0; i < n; i++) {
        const qr = dr[i] * kr[i] - di[i] * ki[i], qi = dr[i] * ki[i] + di[i] * kr[i];
        const below = Pr[i] ** 2 + Pi[i] ** 2; // (w / t) (dual P k) / P_ii, its real part
        const ur = (qr * Pr[i] + qi * Pi[i]) / below, ui = (qi * Pr[i] - qr * Pi[i]) / below;
        change[i] -= wx * ur - wy * ui;
      }
    }
    shown[chosen].change = change;
    return { leverage, shown };
  };

  // The largest eigenvalue of a matrix with positive entries, by the power method.
  const largest = (A, n) => {
    let x = new Float64Array(n).fill(1), size = 0;
    for (let step = 0; step < 60; step++) {
      x = times(A, n, x);
      size = Math.sqrt(dot(x, 0, x, 0, n));
      x = x.map((v) => v / size);
    }
    return size;
  };

  return { compact, kernel, convolution, rowByRow, inPieces, part, cholesky, inverse, atTheEnd, withoutGroup, eigen, atTime, largest };
})();
if (typeof module !== "undefined") module.exports = live;
