// The viewer of the page: a scene, its map and the confidence, with zoom, pan, opacity and a divider.
// The server writes <ce-viewer data-view="JSON"> and, while a map grows, <ce-growth data-labels="address of a PNG">.
"use strict";

const NO_DATA = 255; // in both gray pictures
const CONFIDENCE_STEPS = 254; // gray level of a confidence of 1
const UNCERTAIN = 0.5;
const ORANGE = [230, 159, 0];
const DARKEST = 40, LIGHTEST = 245; // gray levels of the least and the most certain

/** The gray levels of a PNG, to the bit. */
async function grayLevels(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`the picture cannot be loaded (${answer.status})`);
  const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(await answer.blob(), options);
  const canvas = blank(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const levels = new Uint8Array(bitmap.width * bitmap.height);
  for (let i = 0; i < levels.length; i++) levels[i] = data[4 * i];
  return { width: bitmap.width, height: bitmap.height, levels };
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

/** A picture in which each gray level has a color of `colors`, [red, green, blue] or nothing. */
function painted(gray, colors) {
  const canvas = blank(gray.width, gray.height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(gray.width, gray.height);
  const packed = new Uint32Array(256);
  const bytes = new Uint8Array(packed.buffer);
  colors.forEach((color, level) => color && bytes.set([...color, 255], 4 * level));
  const target = new Uint32Array(image.data.buffer);
  for (let i = 0; i < gray.levels.length; i++) target[i] = packed[gray.levels[i]];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Colors of the levels of confidence: shades of gray, and orange for what is uncertain. */
function confidenceColors() {
  return Array.from({ length: CONFIDENCE_STEPS + 1 }, (_, level) => {
    const share = level / CONFIDENCE_STEPS;
    if (share < UNCERTAIN) return ORANGE;
    const shade = Math.round(DARKEST + ((LIGHTEST - DARKEST) * (share - UNCERTAIN)) / (1 - UNCERTAIN));
    return [shade, shade, shade];
  });
}

/** An element that works anew from its attributes: gradio changes these in place rather than replace the element. */
class Rebuilt extends HTMLElement {
  connectedCallback() {
    this.plan();
  }

  attributeChangedCallback() {
    this.plan();
  }

  /** Calls `build` once the changes of the page that are under way are done. */
  plan() {
    if (this.planned) return;
    this.planned = true;
    queueMicrotask(() => {
      this.planned = false;
      if (this.isConnected) this.build();
    });
  }
}

class Viewer extends Rebuilt {
  static observedAttributes = ["data-view"];

  build() {
    this.end();
    this.view = JSON.parse(this.dataset.view);
    this.hiddenClasses = new Set();
    this.pictures = {}; // painted layers by name
    this.gray = {}; // gray levels by name
    this.cut = this.view.labels ? 50 : 0;
    this.listeners = new AbortController();
    this.makeMap();
    this.connectControls();
    this.load("labels", this.view.labels);
    this.load("confidence", this.view.confidence);
  }

  disconnectedCallback() {
    this.end();
  }

  end() {
    this.map?.setTarget(null);
    this.listeners?.abort();
    this.map = undefined;
  }

  makeMap() {
    const { width, height, meters, scene } = this.view;
    const extent = [0, 0, width, height];
    const projection = new ol.proj.Projection({
      code: "pixels-of-the-scene", units: "pixels", extent, metersPerUnit: meters ?? 1,
      getPointResolution: (resolution) => resolution,
    });
    const source = new ol.source.ImageStatic({ url: scene, imageExtent: extent, projection });
    this.layers = {};
    for (const name of ["labels", "confidence"]) this.layers[name] = this.overlay(name, projection);
    this.layers.confidence.setVisible(false);
    const controls = [new ol.control.Zoom(), new ol.control.ZoomToExtent({ extent, label: "⤢", tipLabel: "Whole scene" })];
    if (meters) controls.push(new ol.control.ScaleLine({ units: "metric" }));
    const focused = new ol.interaction.MouseWheelZoom({ condition: ol.events.condition.focus });
    this.map = new ol.Map({
      target: this.querySelector(".ce-canvas"),
      layers: [new ol.layer.Image({ source, className: "ce-layer-scene" }), ...Object.values(this.layers)],
      view: new ol.View({
        projection, extent, showFullExtent: true, center: [width / 2, height / 2],
        minResolution: 1 / 16, maxResolution: Math.max(width, height) / 100, resolution: 1,
      }),
      controls,
      interactions: ol.interaction.defaults.defaults({
        mouseWheelZoom: false, altShiftDragRotate: false, pinchRotate: false,
      }).extend([focused]),
    });
    for (const button of this.querySelectorAll(".ol-control button")) button.ariaLabel = button.title;
    this.map.getView().fit(extent);
    this.map.on("pointermove", (event) => event.dragging || this.tell(event.coordinate));
    this.map.on("moveend", () => this.contains(document.activeElement) && this.tell(this.map.getView().getCenter()));
  }

  overlay(name, projection) {
    const { width, height } = this.view;
    const canvasFunction = (extent, resolution, pixelRatio, size) => {
      const canvas = blank(size[0], size[1]);
      const picture = this.pictures[name];
      if (picture) {
        const context = canvas.getContext("2d");
        const scale = pixelRatio / resolution;
        context.imageSmoothingEnabled = false;
        context.drawImage(picture, -extent[0] * scale, (extent[3] - height) * scale, width * scale, height * scale);
      }
      return canvas;
    };
    const source = new ol.source.ImageCanvas({ canvasFunction, projection, ratio: 1, interpolate: false });
    const layer = new ol.layer.Image({ source, className: `ce-layer-${name}` });
    layer.on("prerender", (event) => this.clip(event));
    layer.on("postrender", (event) => event.context.restore());
    return layer;
  }

  /** Keeps an overlay to the right of the divider. */
  clip(event) {
    const [width, height] = this.map.getSize();
    const left = (width * this.cut) / 100;
    const corners = [[left, 0], [width, 0], [width, height], [left, height]];
    event.context.save();
    event.context.beginPath();
    for (const corner of corners) event.context.lineTo(...ol.render.getRenderPixel(event, corner));
    event.context.clip();
  }

  listen(element, kind, answer) {
    element?.addEventListener(kind, answer, { signal: this.listeners.signal });
  }

  connectControls() {
    for (const pick of this.querySelectorAll(".ce-pick")) {
      pick.checked = pick.value === "labels";
      this.listen(pick, "change", () => this.show(pick.value));
    }
    this.show("labels");
    const opacity = this.querySelector(".ce-opacity");
    if (opacity) opacity.value = 100;
    this.listen(opacity, "input", () => {
      for (const layer of Object.values(this.layers)) layer.setOpacity(opacity.value / 100);
    });
    for (const box of this.closest(".ce-result")?.querySelectorAll(".ce-class") ?? []) {
      box.checked = true;
      this.listen(box, "change", () => this.toggle(Number(box.value), box.checked));
    }
    this.divider = this.querySelector(".ce-divider");
    if (this.divider) this.connectDivider();
  }

  connectDivider() {
    const divider = this.divider;
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    this.listen(divider, "keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.moveDivider(this.cut + steps[event.key]);
    });
    this.listen(divider, "pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    this.listen(divider, "pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = this.querySelector(".ce-frame").getBoundingClientRect();
      this.moveDivider((100 * (event.clientX - box.left)) / box.width);
    });
    this.moveDivider(this.cut);
  }

  moveDivider(percent) {
    this.cut = Math.min(100, Math.max(0, percent));
    this.style.setProperty("--cut", `${this.cut}%`);
    this.divider.setAttribute("aria-valuenow", Math.round(this.cut));
    this.map.render();
  }

  async load(name, address) {
    if (!address) return;
    const view = this.view;
    try {
      const gray = await grayLevels(address);
      if (view !== this.view) return; // another scene is shown by now
      this.gray[name] = gray;
    } catch (error) {
      this.querySelector(".ce-readout").textContent = `${error.message}; make the map again`;
      return;
    }
    this.paint(name);
    this.dataset[`${name}Shown`] = "yes";
  }

  paint(name) {
    if (!this.gray[name]) return;
    let colors = confidenceColors();
    if (name === "labels") colors = this.view.colors.map((color, id) => (this.hiddenClasses.has(id) ? null : color));
    this.pictures[name] = painted(this.gray[name], colors);
    this.layers[name].getSource().changed();
  }

  show(name) {
    for (const [other, layer] of Object.entries(this.layers)) layer.setVisible(other === name);
    this.dataset.layer = name;
  }

  toggle(id, shown) {
    if (shown) this.hiddenClasses.delete(id);
    else this.hiddenClasses.add(id);
    this.paint("labels");
  }

  /** Says what lies at a place. */
  tell([x, y]) {
    const { width, height, classes, transform, crs } = this.view;
    const readout = this.querySelector(".ce-readout");
    const column = x, row = height - y;
    if (column < 0 || row < 0 || column >= width || row >= height) return;
    const said = [];
    const label = this.levelAt("labels", column, row);
    if (label !== undefined) said.push(label === NO_DATA ? "no data" : classes[label]);
    const level = this.levelAt("confidence", column, row);
    if (level !== undefined && level !== NO_DATA)
      said.push(`confidence ${Math.round((100 * level) / CONFIDENCE_STEPS)} %`);
    if (transform) {
      const [a, b, c, d, e, f] = transform;
      const digits = Math.abs(a) + Math.abs(b) < 0.01 ? 6 : 1;
      const east = (a * column + b * row + c).toFixed(digits), north = (d * column + e * row + f).toFixed(digits);
      said.push(`${east}, ${north} (${crs})`);
    } else {
      said.push(`column ${Math.floor(column) + 1}, row ${Math.floor(row) + 1}`);
    }
    readout.textContent = said.join(" · ");
  }

  levelAt(name, column, row) {
    const gray = this.gray[name];
    if (!gray) return undefined;
    const x = Math.floor((column * gray.width) / this.view.width);
    const y = Math.floor((row * gray.height) / this.view.height);
    return gray.levels[y * gray.width + x];
  }
}

/** News of a map that is being made, for the viewer on the page. */
class Growth extends Rebuilt {
  static observedAttributes = ["data-labels"];

  build() {
    const viewer = document.querySelector("ce-viewer");
    if (viewer?.map && this.dataset.labels) viewer.load("labels", this.dataset.labels);
  }
}

customElements.define("ce-viewer", Viewer);
customElements.define("ce-growth", Growth);
