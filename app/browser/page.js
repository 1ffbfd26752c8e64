// The page: takes a picture, hands its pixels to the worker, draws the map and its legend.

const at = (id) => document.getElementById(id);
const worker = new Worker("worker.js", { type: "module" });
const LARGEST = 4096; // pixels of a side; larger pictures are drawn smaller
let description = null; // what the model file says about itself, once it is loaded
let name = "picture";

worker.onmessage = ({ data }) => answers[data.kind](data);
worker.onerror = (event) => say(`The page cannot start: ${event.message || "its files are incomplete"}.`);

const answers = {
  ready(data) {
    description = data.description;
    document.body.dataset.engine = data.engine;
    say(`Ready (${data.engine}).`);
  },
  progress({ share }) {
    at("progress").value = share;
  },
  map({ labels, seconds }) {
    at("progress").hidden = true;
    draw(labels);
    document.body.dataset.seconds = seconds.toFixed(2);
    say(`Done in ${seconds.toFixed(1)} s.`);
  },
  failed({ sentence }) {
    at("progress").hidden = true;
    say(sentence);
  },
};

function say(sentence) {
  at("status").textContent = sentence;
}

async function take(file) {
  delete document.body.dataset.seconds;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    say(`${file.name} is not a picture that this browser can read; save it as PNG or JPEG.`);
    return;
  }
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = at("picture");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  name = file.name.replace(/\.[^.]*$/, "");
  at("result").hidden = true;
  at("progress").hidden = false;
  at("progress").value = 0;
  say(`Mapping ${file.name}, ${canvas.width} x ${canvas.height} pixels ...`);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  worker.postMessage({ pixels: data, width: canvas.width, height: canvas.height }, [data.buffer]);
}

function draw(labels) {
  const { width, height } = at("picture");
  const colors = description.class_colors;
  const canvas = at("map");
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  const counts = new Array(colors.length).fill(0);
  labels.forEach((label, index) => {
    counts[label] += 1;
    image.data.set(colors[label], 4 * index);
    image.data[4 * index + 3] = 255;
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  at("legend").replaceChildren(...colors.map((color, label) => row(color, label, counts[label] / labels.length)));
  canvas.toBlob((blob) => {
    URL.revokeObjectURL(at("download").href);
    at("download").href = URL.createObjectURL(blob);
    at("download").download = `${name}_map.png`;
  });
  at("result").hidden = false;
}

function row(color, label, share) {
  const swatch = document.createElement("canvas"); // the policy of the page allows no style in an element
  swatch.width = swatch.height = 14;
  swatch.className = "swatch";
  const context = swatch.getContext("2d");
  context.fillStyle = `rgb(${color.join(" ")})`;
  context.fillRect(0, 0, 14, 14);
  const line = document.createElement("tr");
  const [title, value] = [document.createElement("td"), document.createElement("td")];
  title.append(swatch, description.class_names[label]);
  value.textContent = `${(100 * share).toFixed(1)} %`;
  line.append(title, value);
  return line;
}

at("file").addEventListener("change", ({ target }) => target.files.length && take(target.files[0]));
at("opacity").addEventListener("input", ({ target }) => {
  at("map").style.opacity = target.value / 100;
});
at("map").style.opacity = at("opacity").value / 100;
for (const kind of ["dragover", "dragleave", "drop"]) {
  at("place").addEventListener(kind, (event) => {
    event.preventDefault();
    at("place").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}
say("Loading the model ...");
