// The waveform of a piece that is being written, with its seconds.

const SPAN_S = 30; // of a longer piece, so much is seen at a time
const AXIS = 14; // pixels
const COLOURS = { wave: "#6fb3c9", known: "#8a7fb8", written: "#22303a", axis: "#8b929c", head: "#f0c674" };

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
  }

  /** begin message: rate_hz, bin (samples of a pair of peaks), total_s, known_s. */
  begin({ rate_hz, bin, total_s, known_s }) {
    this.binS = bin / rate_hz;
    this.bin = bin;
    this.totalS = total_s;
    this.knownS = known_s;
    this.peaks = new Int8Array(2 * (Math.ceil(total_s / this.binS) + 2)); // 720 kB an hour
    this.heard = [Infinity, 0]; // bins
  }

  add(position, peaks) {
    const first = Math.round(position / this.bin);
    this.peaks.set(peaks.subarray(0, Math.max(0, this.peaks.length - 2 * first)), 2 * first);
    this.heard = [Math.min(this.heard[0], first), Math.max(this.heard[1], first + peaks.length / 2)];
  }

  draw(writtenS, playedS) {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !this.peaks) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);

    const span = Math.min(this.totalS, SPAN_S);
    const followed = playedS ?? writtenS;
    const start = Math.min(Math.max(0, followed - 0.8 * span), Math.max(0, this.totalS - span));
    const x = (second) => ((second - start) / span) * width;

    pen.fillStyle = COLOURS.written;
    pen.fillRect(x(0), 0, x(writtenS) - x(0), height - AXIS);
    this.drawWave(pen, width, height - AXIS, start, span);
    this.drawAxis(pen, width, height, start, span, x);
    if (playedS !== null) {
      pen.fillStyle = COLOURS.head;
      pen.fillRect(x(playedS), 0, 1.5, height - AXIS);
    }
  }

  drawWave(pen, width, height, start, span) {
    const middle = height / 2;
    for (let pixel = 0; pixel < width; pixel++) {
      const first = Math.floor((start + (pixel / width) * span) / this.binS);
      const last = Math.max(first + 1, Math.floor((start + ((pixel + 1) / width) * span) / this.binS));
      if (first >= this.heard[1] || last <= this.heard[0]) continue;
      let low = 127;
      let high = -127;
      for (let bin = first; bin < last; bin++) {
        low = Math.min(low, this.peaks[2 * bin]);
        high = Math.max(high, this.peaks[2 * bin + 1]);
      }
      pen.fillStyle = first * this.binS < this.knownS ? COLOURS.known : COLOURS.wave;
      const top = middle - (high / 127) * middle;
      pen.fillRect(pixel, top, 1, Math.max(1, ((high - low) / 127) * middle));
    }
  }

  drawAxis(pen, width, height, start, span, x) {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((candidate) => (candidate / span) * width >= 36) ?? 10;
    pen.fillStyle = COLOURS.axis;
    pen.font = "10px sans-serif";
    pen.textBaseline = "bottom";
    for (let tick = Math.ceil(start / step); tick * step <= start + span; tick++) {
      const at = x(tick * step);
      pen.fillRect(at, height - AXIS, 1, 3);
      const label = `${Math.round(tick * step * 10) / 10}`;
      if (at + 14 < width) pen.fillText(tick === 0 ? "0 s" : label, at + 2, height);
    }
  }
}
