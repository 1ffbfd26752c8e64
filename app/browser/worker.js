// Runs the model beside the page: window by window, blended by weights that fall off towards a window's edge.

import { metadata } from "./onnx_metadata.js";

const RUNTIME = new URL("node_modules/onnxruntime-web/dist/", import.meta.url).href;
const MODEL = new URL("model.onnx", import.meta.url).href;
const WINDOW = 512;
const STRIDE = 384;

const loading = load();
loading.catch((error) => postMessage({ kind: "failed", sentence: `The model cannot be loaded: ${error.message}` }));
let queue = loading;

onmessage = ({ data }) => {
  queue = queue.then(() => map(data)).catch((error) => {
    postMessage({ kind: "failed", sentence: `The map failed: ${error.message}` });
  });
};

async function load() {
  const answer = await fetch(MODEL);
  if (!answer.ok) throw new Error(`model.onnx answers ${answer.status}; export one beside this page`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const description = metadata(bytes);
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const engines = adapter ? ["webgpu", "wasm"] : ["wasm"];
  const found = await started(engines, bytes);
  postMessage({ kind: "ready", description, engine: found.engine });
  return { ...found, description };
}

async function started(engines, bytes) {
  const [engine, ...others] = engines;
  try {
    const ort = await import(`${RUNTIME}ort.${engine}.bundle.min.mjs`);
    ort.env.wasm.wasmPaths = RUNTIME;
    const session = await ort.InferenceSession.create(bytes, { executionProviders: engines });
    const zeros = new ort.Tensor("float32", new Float32Array(3 * 64 * 64), [1, 3, 64, 64]);
    await session.run({ pixel_values: zeros }); // shows whether the engine has all that the model needs
    return { ort, session, engine };
  } catch (error) {
    if (!others.length) throw error;
    return started(others, bytes);
  }
}

async function map({ pixels, width, height }) {
  const loaded = await loading;
  const began = performance.now();
  const classes = loaded.description.class_colors.length;
  const totals = new Float32Array(classes * width * height);
  const [sideX, sideY] = [width, height].map((side) => side_of(side, loaded.description));
  const places = starts(height, sideY).flatMap((top) => starts(width, sideX).map((left) => [top, left]));
  for (const [index, [top, left]] of places.entries()) {
    const input = window_of(pixels, width, height, top, left, sideY, sideX, loaded.description);
    const tensor = new loaded.ort.Tensor("float32", input, [1, 3, sideY, sideX]);
    const { scores } = await loaded.session.run({ pixel_values: tensor });
    add(totals, width, height, await scores.getData(), scores.dims, top, left, sideY, sideX);
    postMessage({ kind: "progress", share: (index + 1) / places.length });
  }
  const labels = best(totals, classes, width * height);
  postMessage({ kind: "map", labels, seconds: (performance.now() - began) / 1000 }, [labels.buffer]);
}

function side_of(side, { size_multiple, least_side }) {
  return Math.max(least_side, Math.ceil(Math.min(side, WINDOW) / size_multiple) * size_multiple);
}

function starts(side, window) {
  const count = Math.max(0, Math.ceil((side - window) / STRIDE)) + 1;
  return Array.from({ length: count }, (_, index) => Math.max(0, Math.min(index * STRIDE, side - window)));
}

// Normalized as the image processor does; beyond the picture 0, the mean color.
function window_of(pixels, width, height, top, left, sideY, sideX, { image_mean, image_std, rescale_factor }) {
  const input = new Float32Array(3 * sideY * sideX);
  for (let channel = 0; channel < 3; channel += 1) {
    for (let y = 0; y < Math.min(sideY, height - top); y += 1) {
      const row = (channel * sideY + y) * sideX;
      for (let x = 0; x < Math.min(sideX, width - left); x += 1) {
        const value = pixels[4 * ((top + y) * width + left + x) + channel] * rescale_factor;
        input[row + x] = (value - image_mean[channel]) / image_std[channel];
      }
    }
  }
  return input;
}

// Scores of a quarter of the window's sides are brought to full size bilinearly.
function add(totals, width, height, scores, [, classes, rows, columns], top, left, sideY, sideX) {
  const [down, across] = [taps(rows, sideY), taps(columns, sideX)];
  for (let y = 0; y < Math.min(sideY, height - top); y += 1) {
    const [upper, lower, low] = down[y];
    for (let x = 0; x < Math.min(sideX, width - left); x += 1) {
      const [before, after, right] = across[x];
      const weight = Math.min(y + 1, sideY - y) * Math.min(x + 1, sideX - x);
      for (let label = 0; label < classes; label += 1) {
        const [first, second] = [(label * rows + upper) * columns, (label * rows + lower) * columns];
        const above = scores[first + before] * (1 - right) + scores[first + after] * right;
        const below = scores[second + before] * (1 - right) + scores[second + after] * right;
        totals[(label * height + top + y) * width + left + x] += weight * (above * (1 - low) + below * low);
      }
    }
  }
}

// For each of `side` pixels the two cells out of `cells` beside it, and the share of the second.
function taps(cells, side) {
  return Array.from({ length: side }, (_, index) => {
    const place = Math.max(0, ((index + 0.5) * cells) / side - 0.5);
    const first = Math.floor(place);
    return [first, Math.min(first + 1, cells - 1), place - first];
  });
}

function best(totals, classes, count) {
  const labels = new Uint8Array(count);
  for (let index = 0; index < count; index += 1) {
    for (let label = 1; label < classes; label += 1) {
      if (totals[label * count + index] > totals[labels[index] * count + index]) labels[index] = label;
    }
  }
  return labels;
}
