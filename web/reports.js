// What nodes report: the page's classic canvas breaks such texts amid words, and forgets them when it is opened anew.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const REPORT = "$$node-text-preview"; // the widget that the page adds for a text
const LINES = { MusicGenTrain: 4 }; // of a report that are seen without scrolling; the page shows two
const [LINE_HEIGHT, MARGIN] = [16, 26]; // pixels, of its texts
const STYLE = ".musicgen-report .break-all { word-break: normal; overflow-wrap: anywhere; }";

app.registerExtension({
  name: "MusicGenPansori.Reports",

  setup() {
    const style = document.createElement("style");
    style.textContent = STYLE;
    document.head.append(style);
  },

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("MusicGen")) return;

    const addCustomWidget = nodeType.prototype.addCustomWidget;
    nodeType.prototype.addCustomWidget = function (widget, ...args) {
      // The page gives a widget's props to its component, and what that does not declare to its outermost element.
      if (widget.name === REPORT && widget.props) {
        widget.props.class = "musicgen-report";
        const lines = LINES[nodeData.name];
        if (lines) widget.options.getMinHeight = () => MARGIN + lines * LINE_HEIGHT;
      }
      return addCustomWidget.call(this, widget, ...args);
    };

    // Of a node whose result is there already ComfyUI sends the outputs alone, and a page opened since has not seen its text.
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output, ...args) {
      const result = onExecuted?.call(this, output, ...args);
      if (output?.text?.length && this.graph === app.canvas?.graph) {
        const text = output.text.join("\n").replaceAll("\n", "  \n"); // a break in Markdown
        api.dispatchCustomEvent?.("progress_text", { nodeId: String(this.id), text });
      }
      return result;
    };
  },
});
