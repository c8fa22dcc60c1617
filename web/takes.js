// The takes of MusicGen Takes: a player, a waveform, measures and a button each. Nothing of it is saved with the workflow.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const TAKES_NODE = "MusicGenTakes";
const ROW_HEIGHT = 64; // pixels
const ROWS_SHOWN = 5; // then the list scrolls

const STYLE = `
.musicgen-takes { overflow-y: auto; box-sizing: border-box; width: 100%; height: 100%; font: 12px sans-serif; color: #ddd; }
.musicgen-take { display: flex; align-items: center; gap: 6px; height: ${ROW_HEIGHT - 6}px; margin-bottom: 4px; padding: 0 6px;
  border-radius: 6px; background: #0004; border: 1px solid transparent; box-sizing: border-box; }
.musicgen-take.chosen { border-color: #6cf; }
.musicgen-take button { cursor: pointer; color: inherit; background: #fff2; border: 0; border-radius: 4px; padding: 4px 7px; }
.musicgen-take button.play { min-width: 32px; }
.musicgen-take .rank { min-width: 26px; text-align: right; opacity: 0.8; }
.musicgen-take .middle { flex: 1; min-width: 0; }
.musicgen-take canvas { width: 100%; height: 26px; display: block; cursor: pointer; }
.musicgen-take .words { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: 10px; opacity: 0.85; }
.musicgen-take .fault { color: #fa6; }
`;

let playing = null; // the one player that sounds, of all nodes

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function addStyle() {
  if (document.getElementById("musicgen-takes-style")) return;
  const style = element("style");
  style.id = "musicgen-takes-style";
  style.textContent = STYLE;
  document.head.append(style);
}

/** The measures of a take in words, at most two lines. */
function words(take) {
  const parts = [];
  if (take.seed !== null) parts.push(`seed ${take.seed}`);
  parts.push(`${take.seconds} s`, take.silent ? "silent" : `${take.level_db} dB`);
  if (take.bpm) parts.push(take.asked_bpm ? `${take.bpm} of ${take.asked_bpm} bpm` : `${take.bpm} bpm`);
  parts.push(`repetition ${take.repetition}`);
  if (take.likelihood !== null) parts.push(`likelihood ${take.likelihood}`);
  if (take.text_gain !== null) parts.push(`text ${take.text_gain > 0 ? "+" : ""}${take.text_gain}`);
  return parts.join(" · ");
}

/** Whether the text of the widget `choose` names a take; the server reads it in the same way. */
function isChosen(choose, take) {
  const text = String(choose).trim().toLowerCase();
  if (text === "all") return true;
  const best = /^best\s*(\d*)$/.exec(text);
  if (best) return take.rank <= (best[1] === "" ? 1 : Number(best[1]));
  return text.split(",").some((part) => {
    const [first, last] = part.split("-").map(Number);
    return first <= take.number && take.number <= (last ?? first);
  });
}

function draw(canvas, take, share) {
  const width = (canvas.width = 2 * (canvas.clientWidth || 240));
  const height = (canvas.height = 52);
  const context = canvas.getContext("2d");
  const step = width / take.peaks.length;
  take.peaks.forEach((peak, index) => {
    context.fillStyle = index / take.peaks.length < share ? "#6cf" : "#8a8a8a";
    const tall = Math.max(2, (peak / 100) * height);
    context.fillRect(index * step, (height - tall) / 2, Math.max(1, step - 1), tall);
  });
}

function takeRow(take, choose) {
  const row = element("div", "musicgen-take");
  const player = element("audio");
  player.preload = "none";
  const query = new URLSearchParams({ filename: take.filename, subfolder: take.subfolder, type: take.type });
  player.src = api.apiURL(`/view?${query}`);
  const play = element("button", "play", "▶");
  const canvas = element("canvas");
  const line = element("div", "words", words(take));
  const second = element("div", "words", take.text ?? "");
  if (take.faults.length) {
    second.textContent = "";
    second.append(element("span", "fault", take.faults.join(", ")), ` ${take.text ?? ""}`);
  }
  row.title = [words(take), take.faults.join(", "), take.text].filter(Boolean).join("\n");
  const redraw = () => draw(canvas, take, player.duration ? player.currentTime / player.duration : 0);
  const sound = () => {
    if (playing && playing !== player) playing.pause();
    playing = player;
    player.play().catch(() => (line.textContent = "This take is no longer there: run the workflow again."));
  };
  play.onclick = () => (player.paused ? sound() : player.pause());
  canvas.onclick = (event) => {
    const box = canvas.getBoundingClientRect();
    player.currentTime = (take.seconds * (event.clientX - box.left)) / box.width;
    sound();
  };
  player.onplay = () => (play.textContent = "❚❚");
  player.onpause = player.onended = () => {
    play.textContent = "▶";
    redraw();
  };
  player.ontimeupdate = redraw;
  const pick = element("button", "choose", "choose");
  pick.onclick = (event) => choose(take, event.shiftKey);
  const middle = element("div", "middle");
  middle.append(canvas, line, second);
  row.append(element("div", "rank", `#${take.rank}`), play, middle, element("div", "number", `take ${take.number}`), pick, player);
  requestAnimationFrame(redraw);
  return { row, player, take, redraw };
}

class TakesList {
  constructor(node) {
    this.node = node;
    this.rows = [];
    this.root = element("div", "musicgen-takes");
    this.root.addEventListener("wheel", (event) => event.stopPropagation());
  }

  get widget() {
    return this.node.widgets?.find((widget) => widget.name === "choose");
  }

  show(takes) {
    this.stop();
    const ranked = [...takes].sort((a, b) => a.rank - b.rank);
    this.rows = ranked.map((take) => takeRow(take, (chosen, add) => this.choose(chosen, add)));
    this.root.replaceChildren(...this.rows.map(({ row }) => row));
    this.mark();
    const size = this.node.computeSize();
    this.node.setSize([Math.max(this.node.size[0], 460), Math.max(this.node.size[1], size[1])]);
    this.node.setDirtyCanvas?.(true, true);
  }

  choose(take, add) {
    const widget = this.widget;
    if (!widget) return;
    const isList = /^[\d\s,-]+$/.test(widget.value);
    widget.value = add && isList && !isChosen(widget.value, take) ? `${widget.value},${take.number}` : String(take.number);
    widget.callback?.(widget.value);
    this.mark();
    this.node.setDirtyCanvas?.(true, true);
  }

  mark() {
    for (const { row, take } of this.rows) row.classList.toggle("chosen", isChosen(this.widget?.value ?? "", take));
  }

  stop() {
    for (const { player } of this.rows) player.pause();
  }

  get height() {
    return Math.max(1, Math.min(ROWS_SHOWN, this.rows.length)) * ROW_HEIGHT;
  }
}

app.registerExtension({
  name: "MusicGenPansori.Takes",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== TAKES_NODE) return;
    addStyle();

    const onNodeCreated = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      const list = (this.musicgenTakes = new TakesList(this));
      const options = { serialize: false, hideOnZoom: false, getMinHeight: () => list.height };
      const widget = this.addDOMWidget("takes", "musicgen_takes", list.root, options);
      widget.serialize = false;
      const choose = list.widget;
      const callback = choose?.callback;
      if (choose) {
        choose.callback = function (...given) {
          const answer = callback?.apply(this, given);
          list.mark();
          return answer;
        };
      }
      return result;
    };

    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output, ...args) {
      onExecuted?.apply(this, [output, ...args]);
      if (output?.takes) this.musicgenTakes?.show(output.takes);
    };

    const onRemoved = nodeType.prototype.onRemoved;
    nodeType.prototype.onRemoved = function (...args) {
      this.musicgenTakes?.stop();
      return onRemoved?.apply(this, args);
    };
  },

  // Results of a workflow that is shown again, on a change of tab.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const list = app.graph?.getNodeById(id)?.musicgenTakes;
      if (list && output?.takes && !list.rows.length) list.show(output.takes);
    }
  },
});
