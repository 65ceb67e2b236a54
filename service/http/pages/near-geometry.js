// Cosines of vectors, and where to draw them on a plane. Pure, and the same on every machine for the same vectors.

const MOST_ROUNDS = 400;
const CONVERGED = 1e-9;

// The cosine of two vectors of the same length.
export function cosine(a, b) {
  let dot = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    squaresA += a[i] * a[i];
    squaresB += b[i] * b[i];
  }
  return dot / Math.sqrt(squaresA * squaresB);
}

// All cosines of `count` vectors, one behind the other in `vectors`: count × count, rows first.
export function cosinesOf(vectors, count) {
  const width = vectors.length / count;
  const rows = Array.from({ length: count }, (_, row) => vectors.subarray(row * width, (row + 1) * width));
  const cosines = new Float64Array(count * count);
  for (let row = 0; row < count; row++) {
    cosines[row * count + row] = 1;
    for (let column = 0; column < row; column++) {
      cosines[row * count + column] = cosines[column * count + row] = cosine(rows[row], rows[column]);
    }
  }
  return cosines;
}

// Classical scaling: the plane on which the points' distances come closest to those of the vectors of length 1.
// {points: x and y of each, share: how much of the differences the plane shows, 0 to 1}.
export function project(cosines, count) {
  const centred = centre(cosines, count);
  let total = 0;
  for (let i = 0; i < count; i++) total += centred[i * count + i];
  const points = new Float64Array(2 * count);
  // All the same.
  if (total < 1e-9) return { points, share: 1 };
  const axes = mainAxes(centred, count);
  axes.forEach(({ axis, strength }, at) => {
    for (let i = 0; i < count; i++) points[2 * i + at] = axis[i] * Math.sqrt(Math.max(0, strength));
  });
  return { points, share: Math.min(1, (axes[0].strength + axes[1].strength) / total) };
}

// Subtracts the mean of each row and of each column.
function centre(cosines, count) {
  const means = new Float64Array(count);
  let mean = 0;
  for (let row = 0; row < count; row++) {
    for (let column = 0; column < count; column++) means[row] += cosines[row * count + column] / count;
    mean += means[row] / count;
  }
  return cosines.map((value, at) => value - means[Math.floor(at / count)] - means[at % count] + mean);
}

// The two strongest eigenvectors, the stronger first, by power iteration on both at once.
function mainAxes(matrix, count) {
  // Any start will do that is no eigenvector by chance.
  let pair = [0, 1].map((k) => Float64Array.from({ length: count }, (_, i) => Math.sin((i + 1) * (k + 1.3))));
  orthonormalise(pair);
  let strength = 0;
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const next = pair.map((axis) => times(matrix, axis));
    const reached = dot(pair[0], next[0]) + dot(pair[1], next[1]);
    pair = next;
    orthonormalise(pair);
    if (Math.abs(reached - strength) <= CONVERGED * Math.abs(reached)) break;
    strength = reached;
  }
  return turned(matrix, pair).map(({ axis, strength }) => ({ axis: signed(axis), strength }));
}

// Power iteration finds the plane before it finds the axes in it. Those are the eigenvectors of a 2 × 2 matrix.
function turned(matrix, [first, second]) {
  const image = times(matrix, first);
  const a = dot(first, image);
  const b = dot(second, image);
  const c = dot(second, times(matrix, second));
  const angle = Math.atan2(2 * b, a - c) / 2;
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return [
    { axis: first.map((value, i) => cos * value + sin * second[i]), strength: a * cos * cos + 2 * b * cos * sin + c * sin * sin },
    { axis: first.map((value, i) => cos * second[i] - sin * value), strength: a * sin * sin - 2 * b * cos * sin + c * cos * cos },
  ];
}

// An eigenvector may point either way. Its largest number is made positive.
function signed(axis) {
  const largest = axis.reduce((most, value) => (Math.abs(value) > Math.abs(most) + 1e-9 ? value : most), 0);
  return largest < 0 ? axis.map((value) => -value) : axis;
}

function orthonormalise([first, second]) {
  scale(first);
  const along = dot(first, second);
  for (let i = 0; i < second.length; i++) second[i] -= along * first[i];
  scale(second);
}

// To length 1. What has no length becomes zeros.
function scale(axis) {
  const length = Math.sqrt(dot(axis, axis));
  for (let i = 0; i < axis.length; i++) axis[i] = length > 1e-12 ? axis[i] / length : 0;
}

function times(matrix, axis) {
  const count = axis.length;
  const result = new Float64Array(count);
  for (let row = 0; row < count; row++) {
    let sum = 0;
    for (let column = 0; column < count; column++) sum += matrix[row * count + column] * axis[column];
    result[row] = sum;
  }
  return result;
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
