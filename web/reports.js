// What nodes report while they run: the page's classic canvas breaks such texts amid words.
import { app } from "../../scripts/app.js";

const REPORT = "$$node-text-preview"; // the widget that the page adds for a text
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
      if (widget.name === REPORT && widget.props) widget.props.class = "musicgen-report";
      return addCustomWidget.call(this, widget, ...args);
    };
  },
});
