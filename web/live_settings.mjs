// What the live player remembers and says, and the numbers in its messages.
import { app } from "../../scripts/app.js";

const KEY = "MusicGenPansori.Live";

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** Sound on or off and its volume, 0 to 1, kept by the browser. */
export const preferences = {
  get on() {
    return stored().on ?? true;
  },
  set on(on) {
    localStorage.setItem(KEY, JSON.stringify({ ...stored(), on }));
  },
  get volume() {
    return stored().volume ?? 0.8;
  },
  set volume(volume) {
    localStorage.setItem(KEY, JSON.stringify({ ...stored(), volume }));
  },
};

const seconds = (value) => (value < 9.95 ? value.toFixed(1) : value.toFixed(0));
const whole = (value) => String(Math.round(value * 10) / 10);

const TEXTS = {
  en: {
    play: "Play what is written so far", pause: "Pause", volume: "Volume", on: "Sound on", off: "Sound off",
    progress: (done, total, left) => `${done.toFixed(1)} of ${whole(total)} s, ${seconds(left)} s left`,
    finished: (done, total, took) => `${whole(total)} s, written in ${seconds(took)} s`,
    kept: (done, total) => `First ${done.toFixed(1)} of ${whole(total)} s kept`,
    stopped: (done, total) => `Stopped at ${done.toFixed(1)} of ${whole(total)} s`,
    whole: (done) => `${whole(done)} s`,
  },
  ko: {
    play: "지금까지 쓴 음악 듣기", pause: "일시 정지", volume: "음량", on: "소리 켜기", off: "소리 끄기",
    progress: (done, total, left) => `${whole(total)}초 중 ${done.toFixed(1)}초, ${seconds(left)}초 남음`,
    finished: (done, total, took) => `${whole(total)}초, 쓰는 데 ${seconds(took)}초`,
    kept: (done, total) => `${whole(total)}초 중 앞 ${done.toFixed(1)}초 남김`,
    stopped: (done, total) => `${whole(total)}초 중 ${done.toFixed(1)}초에서 멈춤`,
    whole: (done) => `${whole(done)}초`,
  },
};

/** The player's texts in the page's language. */
export function texts() {
  const language = app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "en";
  return TEXTS[language] ?? TEXTS.en;
}

/** Base64 of little-endian numbers. */
export function decoded(base64, Kind) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new Kind(bytes.buffer);
}
