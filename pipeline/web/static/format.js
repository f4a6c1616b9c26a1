/* Figures as text. Pure: no page, no clock. Null in, null out: an unknown figure has no text of its own. */

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const THIN = "\u202f";

/** A count or a rate: 0, 3.2, 812, 12,840, 118 k, 4.18 M. */
export function number(value) {
  if (value === null || value === undefined) return null;
  const size = Math.abs(value);
  if (size >= 1e9) return (value / 1e9).toFixed(2) + THIN + "G";
  if (size >= 1e6) return (value / 1e6).toFixed(2) + THIN + "M";
  if (size >= 1e5) return (value / 1e3).toFixed(0) + THIN + "k";
  if (size >= 10 || Number.isInteger(value)) return plain.format(value);
  if (size > 0 && size < 0.05) return value > 0 ? "<0.1" : value.toFixed(2);
  return value.toFixed(1);
}

/** A measured value whose unit is not known: up to three significant decimals. */
export function measure(value) {
  if (value === null || value === undefined) return null;
  return Math.abs(value) >= 1e4 ? number(value) : String(Number(value.toPrecision(4)));
}

/** Milliseconds: 0.42 ms, 4.6 ms, 122 ms, 1.84 s, 3.2 min. */
export function milliseconds(value) {
  if (value === null || value === undefined) return null;
  if (value < 0.995) return value.toFixed(2) + THIN + "ms";
  if (value < 99.95) return value.toFixed(1) + THIN + "ms";
  if (value < 999.5) return value.toFixed(0) + THIN + "ms";
  if (value < 60_000) return (value / 1000).toFixed(2) + THIN + "s";
  return duration(value / 1000);
}

/** Seconds as a person says them: 0.3 s, 41 s, 5 min 12 s, 3 h 4 min, 3 d 4 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return null;
  if (seconds < 0) seconds = 0;
  if (seconds < 9.95) return Number(seconds.toFixed(seconds < 0.095 ? 2 : 1)) + THIN + "s";
  return parts(seconds);
}

function parts(seconds) {
  const whole = Math.round(seconds);
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0" + THIN + "s";
  const [name, size] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  return Math.floor(whole / size) + THIN + name + (rest ? " " + rest + THIN + next[0] : "");
}

/** How long ago: just now, 41 s ago, 3 min 12 s ago. */
export function ago(seconds) {
  return seconds < 1 ? "just now" : parts(seconds) + " ago";
}

export function percent(ratio) {
  return ratio === null || ratio === undefined ? null : (ratio * 100).toFixed(1) + THIN + "%";
}

/** A share as a percentage with no more nines than so many trials can show, rounded down: 99 %, 99.9 %, 99.99 %. */
export function nines(share, trials) {
  if (share === null || share === undefined) return null;
  const decimals = Math.min(3, Math.max(0, Math.floor(Math.log10(trials + 1) + 1e-9) - 2));
  const step = 10 ** decimals;
  return (Math.floor(share * 100 * step + 1e-9) / step).toFixed(decimals) + THIN + "%";
}

export function bytes(value) {
  if (value === null || value === undefined) return null;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return (step && value < 10 ? value.toFixed(1) : value.toFixed(0)) + THIN + units[step];
}

/** The moment as the reader's own clock shows it; unix in seconds. */
export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString(undefined, { hour12: false });
}

export function moment(unix) {
  return new Date(unix * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long", hour12: false });
}
