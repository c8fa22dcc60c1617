// The order of the page's search for nodes: it puts the shortest id first among those that begin with what is typed, so Mix for "music".
import { app } from "../../scripts/app.js";

const FIRST = ["MusicGenLoader", "MusicGenText", "MusicGenSampler", "MusicGenDecode", "MusicGenSaveAudio"]; // of a first graph, in its order

app.registerExtension({
  name: "MusicGenPansori.Search",

  beforeRegisterVueAppNodeDefs(definitions) {
    for (const definition of definitions) {
      const place = FIRST.indexOf(definition.name);
      if (place < 0) continue;
      // The page's own method adds how often a node is used. Scores are [kind of match, its place, length of what matched, ...].
      definition.postProcessSearchScores = function ([kind, start, length, ...rest]) {
        const matched = length === this.name.length ? place : length; // another length: by the title, as any node
        return Object.getPrototypeOf(this).postProcessSearchScores.call(this, [kind, start, matched, ...rest]);
      };
    }
  },
});
