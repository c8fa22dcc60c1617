// What the save node needs from the page: a player, and %date:...% in file names.
import { app } from "../../scripts/app.js";
import { applyTextReplacements } from "../../scripts/utils.js";

const SAVE_NODE = "MusicGenSaveAudio";

app.registerExtension({
  name: "MusicGenPansori.SaveAudio",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== SAVE_NODE) return;

    // The page plays a node's audio in a widget of this name; ComfyUI itself adds it to its own nodes only.
    nodeData.input.required.audioUI = ["AUDIO_UI", {}];

    const onNodeCreated = nodeType.prototype.onNodeCreated;
    nodeType.prototype.onNodeCreated = function (...args) {
      const result = onNodeCreated?.apply(this, args);
      const prefix = this.widgets?.find((widget) => widget.name === "filename_prefix");
      if (prefix) prefix.serializeValue = () => applyTextReplacements(app, prefix.value);
      return result;
    };
  },
});
