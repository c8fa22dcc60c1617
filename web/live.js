// The music while it is written: a player with picture and progress on the sampler node. Takes no part in the workflow.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

// Modules are .mjs: the page loads every .js by itself, as an extension. ComfyUI lets the browser keep an .mjs, so that one of an
// older version could answer; a new address at each load prevents it.
const load = (name) => import(`./live_${name}.mjs?${Date.now()}`);
const [{ Picture }, { Player }, { decoded, preferences, texts }] = await Promise.all(["picture", "player", "settings"].map(load));

const EVENT = "musicgen.live"; // nodes/live.py
const WIDGET = "musicgen_live";
const PICTURE = "$$canvas-image-preview"; // the page's widget of a node's images
const PICTURE_HEIGHT = 84;
const BAR_HEIGHT = 26; // of two lines of text
const FRAME_MS = 80;

const STYLE = `
.musicgen-live { display: flex; flex-direction: column; gap: 4px; width: 100%; box-sizing: border-box; font: 12px sans-serif;
  color: var(--input-text, #ddd); }
.musicgen-live canvas { width: 100%; height: ${PICTURE_HEIGHT}px; display: block; border-radius: 4px; background: #16181d; }
.musicgen-live .bar { display: flex; align-items: center; gap: 6px; height: ${BAR_HEIGHT}px; }
.musicgen-live button { width: 26px; height: 22px; padding: 0; border: 0; border-radius: 4px; cursor: pointer;
  color: inherit; background: var(--comfy-input-bg, #333); line-height: 22px; }
.musicgen-live i { font-size: 11px; }
.musicgen-live input { width: 48px; min-width: 30px; accent-color: #6fb3c9; }
.musicgen-live .line { flex: 1; min-width: 0; max-height: ${BAR_HEIGHT}px; overflow: hidden; font-size: 11px;
  line-height: ${BAR_HEIGHT / 2}px;
  overflow-wrap: anywhere; }
.musicgen-live .sound { display: contents; }
.musicgen-live [hidden] { display: none; }
`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The node of an execution id, "12" or, within subgraphs, "12:5". */
function findNode(id) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number.isNaN(Number(part)) ? part : Number(part));
    graph = node?.subgraph;
  }
  return node;
}

const unsettled = new Set(); // views whose piece is whole, and its sound is not

/** The widget of one node, through all of its runs. */
class LiveView {
  constructor(node) {
    this.node = node;
    this.texts = texts();
    this.line = element("span", { className: "line" });
    this.button = element("button", { type: "button", onclick: () => this.player?.toggle() }, element("i"));
    this.volume = element("input", {
      type: "range", min: 0, max: 1, step: 0.01, value: preferences.volume, title: this.texts.volume,
      oninput: () => this.setVolume(Number(this.volume.value)),
    });
    this.speaker = element("button", { type: "button", onclick: () => this.setOn(!preferences.on) }, element("i"));
    this.sound = element("span", { className: "sound", hidden: true }, this.button, this.volume, this.speaker);
    this.canvas = element("canvas", { hidden: true });
    this.element = element("div", { className: "musicgen-live" }, this.canvas,
      element("div", { className: "bar" }, this.sound, this.line));
    // The canvas of the page takes pointer events for moving the node.
    for (const type of ["pointerdown", "pointermove", "wheel"]) {
      this.element.addEventListener(type, (event) => event.target.closest("button, input") && event.stopPropagation());
    }
    this.picture = new Picture(this.canvas);
  }

  get height() {
    return (this.canvas.hidden ? 0 : PICTURE_HEIGHT + 4) + BAR_HEIGHT;
  }

  begin(run) {
    unsettled.delete(this);
    this.player?.stop();
    this.run = run;
    this.writtenS = run.known_s;
    const before = this.height;
    this.canvas.hidden = !run.rate_hz;
    if (this.grown && this.height !== before) {
      this.grown += this.height - before;
      this.node.setSize([this.node.size[0], this.node.size[1] + this.height - before]);
    }
    this.sound.hidden = !(run.rate_hz && run.sound);
    this.line.textContent = "";
    this.player = null;
    if (run.rate_hz) this.picture.begin(run);
    if (run.rate_hz && run.sound) {
      this.player = new Player(run.rate_hz, run.channels, run.total_s, preferences, () => this.update());
    }
    this.update();
  }

  hear(message) {
    if (!this.run?.rate_hz) return;
    this.picture.add(message.position, decoded(message.peaks, Int8Array));
    if (message.pcm) this.player?.push(message.position, decoded(message.pcm, Int16Array));
    if (message.last) this.settle();
    this.update();
  }

  progress({ written_s, left_s }) {
    this.writtenS = written_s;
    this.line.textContent = this.texts.progress(written_s, this.run.total_s, left_s);
    this.update();
  }

  /** more: the rest of the sound comes once the piece is decoded, if this prompt decodes it. */
  end({ status, written_s, took_s, more }) {
    this.writtenS = written_s;
    this.line.textContent = this.texts[status](written_s, this.run.total_s, took_s);
    if (more) unsettled.add(this);
    else this.settle();
    this.update();
  }

  /** Nothing more will be heard. */
  settle() {
    unsettled.delete(this);
    this.player?.end();
  }

  setVolume(volume) {
    preferences.volume = volume;
    this.player?.setVolume(volume);
  }

  setOn(on) {
    preferences.on = on;
    if (on) this.player?.play();
    else this.player?.pause();
    this.update();
  }

  /** Show the state; again at every frame for as long as something moves. */
  update() {
    const playing = this.player?.isPlaying ?? false;
    this.button.firstChild.className = playing ? "pi pi-pause" : "pi pi-play";
    this.button.title = playing ? this.texts.pause : this.texts.play;
    this.button.disabled = !this.player?.hasSound;
    this.speaker.firstChild.className = preferences.on ? "pi pi-volume-up" : "pi pi-volume-off";
    this.speaker.title = preferences.on ? this.texts.off : this.texts.on;
    if (this.canvas.hidden || this.frame) return;
    this.frame = setTimeout(() => {
      this.frame = null;
      this.picture.draw(this.writtenS, this.player?.positionS ?? null);
      if (this.player?.isPlaying && this.element.isConnected) this.update();
    }, FRAME_MS);
  }

  remove() {
    unsettled.delete(this);
    this.player?.stop();
    clearTimeout(this.frame);
  }
}

/** Put the view on the node, below its widgets. Its height is no part of what is saved. */
function show(node, view) {
  const before = node.size[1];
  const widget = node.addDOMWidget(WIDGET, "musicgen_live", view.element, {
    serialize: false, hideOnZoom: false,
    getMinHeight: () => view.height + 20, getMaxHeight: () => view.height + 20, getHeight: () => view.height + 20,
  });
  widget.serialize = false;
  // A picture that the page draws takes all the height below its place, and would lie under the player.
  const picture = node.widgets.findIndex(({ name }) => name === PICTURE);
  if (picture >= 0) node.widgets.splice(picture, 0, node.widgets.pop());
  node.setSize([node.size[0], before + view.height + 24]);
  view.grown = view.height + 24;
  setTimeout(() => (view.grown = Math.max(0, node.size[1] - before)), 300); // once the page has laid it out
  node.setDirtyCanvas?.(true, true);
  const { onSerialize, onRemoved } = node;
  node.onSerialize = function (saved) {
    onSerialize?.apply(this, arguments);
    saved.size = [saved.size[0], saved.size[1] - view.grown];
  };
  node.onRemoved = function () {
    view.remove();
    return onRemoved?.apply(this, arguments);
  };
}

function receive(message) {
  const node = findNode(message.node);
  if (!node) return;
  if (!node.musicgenLive) node.musicgenLive = new LiveView(node);
  const view = node.musicgenLive;
  if (message.kind === "begin") return view.begin(message);
  if (!view.run) return; // the page was opened in the middle
  if (!view.grown && (message.kind !== "end" || message.status === "kept")) show(node, view);
  if (message.kind === "sound") view.hear(message);
  else if (message.kind === "progress") view.progress(message);
  else if (message.kind === "end") view.end(message);
  if (message.kind !== "sound" || message.last) node.setDirtyCanvas?.(true, true); // older pages place elements only when they draw
}

app.registerExtension({
  name: "MusicGenPansori.Live",

  setup() {
    document.head.append(element("style", { textContent: STYLE }));
    api.addEventListener(EVENT, (event) => receive(event.detail));
    for (const type of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(type, () => unsettled.forEach((view) => view.settle()));
    }
  },
});
