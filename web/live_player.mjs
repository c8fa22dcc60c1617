// Sound that arrives in pieces, played without a gap while more of it is written.

const SHORTEST_S = 1; // of sound before playing begins, or goes on after a wait
const AHEAD_S = 1.5; // of sound handed to the audio device
const LONGEST_S = 300; // of sound waiting to be played; of more, the oldest is dropped
const FADE_S = 0.01;
const TICK_MS = 100;

let context = null; // one for all players: browsers allow only a few
let active = null; // the player that is heard

function contextOf(rate) {
  if (context?.sampleRate !== rate) {
    context?.close();
    context = new AudioContext({ sampleRate: rate });
  }
  return context;
}

export class Player {
  constructor(rate, channels, totalS, preferences, onChange) {
    Object.assign(this, { rate, channels, totalS, preferences, onChange });
    this.waiting = []; // {position, samples}, contiguous
    this.state = "idle"; // idle, playing, paused, ended
    this.isWhole = false; // nothing more will come
    this.beganMs = performance.now();
    this.first = null; // sample that the sound begins with
    this.received = 0; // sample after the last received
    this.scheduled = null; // sample after the last handed to the device
    this.scheduledTime = 0; // when that one will have been played, in the context's time
  }

  get hasSound() {
    return this.waiting.length > 0 || this.state === "playing" || this.state === "paused";
  }

  get isPlaying() {
    return this.state === "playing";
  }

  /** Second of the piece that is heard now; null before the first. */
  get positionS() {
    if (this.scheduled === null) return null;
    const left = active === this && context ? Math.max(0, this.scheduledTime - context.currentTime) : 0;
    return this.scheduled / this.rate - left;
  }

  get bufferedS() {
    return this.waiting.reduce((sum, { samples }) => sum + samples.length, 0) / this.channels / this.rate;
  }

  push(position, samples) {
    if (this.state === "ended") return;
    this.first ??= position;
    if (position < this.received) return; // never back
    this.received = position + samples.length / this.channels;
    this.waiting.push({ position, samples });
    while (this.bufferedS > LONGEST_S) this.waiting.shift();
    if (this.state === "idle" && this.preferences.on && this.isEnough()) this.play();
  }

  /** Nothing more will come. */
  end() {
    this.isWhole = true;
    if (this.state === "idle" && this.preferences.on && this.waiting.length) this.play();
  }

  /** Whether what there is lasts until the rest is written, at the speed so far. */
  isEnough() {
    const heardS = (this.received - this.first) / this.rate;
    const speed = heardS / ((performance.now() - this.beganMs) / 1000);
    const leftS = Math.max(0, this.totalS - this.received / this.rate);
    return this.bufferedS >= SHORTEST_S && this.bufferedS >= 1.1 * leftS * (1 / speed - 1);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.state === "ended" || !this.hasSound) return;
    if (active !== this) active?.stop();
    active = this;
    const device = contextOf(this.rate);
    device.resume(); // waits for a click where the page has not had one
    if (!this.gain) {
      this.gain = device.createGain();
      this.gain.gain.value = this.preferences.volume;
      this.gain.connect(device.destination);
    }
    this.state = "playing";
    this.timer ??= setInterval(() => this.schedule(), TICK_MS);
    this.schedule();
    this.onChange();
  }

  pause() {
    if (!this.isPlaying) return;
    this.state = "paused";
    if (active === this) context.suspend();
    this.onChange();
  }

  setVolume(volume) {
    this.gain?.gain.setTargetAtTime(volume, context.currentTime, 0.02);
  }

  /** The end of this player: a run that takes its place, or the node's removal. */
  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.waiting = [];
    this.state = "ended";
    this.gain?.disconnect();
    if (active === this) active = null;
    this.onChange();
  }

  schedule() {
    if (!this.isPlaying || context.state !== "running") return;
    if (context.currentTime >= this.scheduledTime) {
      if (!this.waiting.length && this.isWhole) return this.stop();
      if (this.bufferedS < SHORTEST_S && !this.isWhole) return; // wait for more
      this.scheduledTime = Math.ceil((context.currentTime + 0.05) * this.rate) / this.rate;
      this.fadeIn = true;
    }
    while (this.waiting.length && this.scheduledTime < context.currentTime + AHEAD_S) {
      this.hand(this.waiting.shift());
    }
  }

  /** One piece to the device, right after the one before. */
  hand({ position, samples }) {
    const length = samples.length / this.channels;
    const buffer = context.createBuffer(this.channels, length, this.rate);
    for (let channel = 0; channel < this.channels; channel++) {
      const data = buffer.getChannelData(channel);
      for (let i = 0; i < length; i++) data[i] = samples[i * this.channels + channel] / 32767;
      const faded = this.fadeIn ? Math.min(length, Math.round(FADE_S * this.rate)) : 0;
      for (let i = 0; i < faded; i++) data[i] *= i / faded;
    }
    this.fadeIn = false;
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.gain);
    source.start(this.scheduledTime);
    this.scheduledTime += length / this.rate;
    this.scheduled = position + length;
  }
}
