// Apply MusicGen Fine-Tune: a list of what is in models/musicgen, for the text in which a name, or an address, is written.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NODE = "MusicGenFineTune";
const TEXTS = {
  en: { choose: "choose a file", none: "no fine-tune: the model as it is", empty: "Nothing in models/musicgen/loras yet" },
  ko: { choose: "파일 고르기", none: "파인튜닝 없음: 모델 그대로", empty: "models/musicgen/loras에 아직 없음" },
};

/** Names of the files and folders that are there now: those of a page opened before may be old. */
async function names() {
  const definition = (await (await api.fetchApi(`/object_info/${NODE}`)).json())[NODE];
  return definition.input.required.weights[1].found ?? [];
}

app.registerExtension({
  name: "MusicGenPansori.FineTunes",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const onNodeCreated = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      const texts = TEXTS[app.ui?.settings?.getSettingValue?.("Comfy.Locale")] ?? TEXTS.en;
      const place = { clientX: 0, clientY: 0 }; // of the pointer, which the page does not tell in every canvas
      const weights = this.widgets.find((widget) => widget.name === "weights");
      const choose = async (event) => {
        Object.assign(place, event && { clientX: event.clientX, clientY: event.clientY });
        const found = await names();
        const entries = [texts.none, ...(found.length ? found : [{ content: texts.empty, disabled: true }])];
        const callback = (entry) => {
          weights.value = entry === texts.none ? "" : entry;
          weights.callback?.(weights.value);
          this.setDirtyCanvas(true, true);
        };
        new LiteGraph.ContextMenu(entries, { event: new MouseEvent("click", place), callback, scale: 1 });
      };
      // Takes no part in the workflow: stored widgets keep their places.
      const button = this.addWidget("button", texts.choose, null, () => choose(window.event), { serialize: false });
      button.serialize = false;
      return result;
    };
  },
});
