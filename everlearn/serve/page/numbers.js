// Figures as people read them: the twin of everlearn/measure/report/numbers.py, held to it by a test.

export const SPACE = "\u00a0";
export const MINUS = "\u2212";
export const NONE = "\u2013";

export const known = (value) => typeof value === "number" && Number.isFinite(value);

// Rounded as Python rounds: a tie goes to the even digit.
export function fixed(value, places) {
  const size = Math.abs(value);
  let text = size.toFixed(places);
  const exact = size.toFixed(Math.min(100, places + 40));
  const dot = exact.indexOf(".");
  const rest = exact.slice(dot + 1 + places);
  if (/^50*$/.test(rest)) {
    const before = places ? exact.slice(0, dot + 1 + places) : exact.slice(0, dot);
    if (Number(before.at(-1)) % 2 === 0) text = before;
  }
  return text;
}

export function decimal(value, places) {
  if (!known(value)) return NONE;
  const text = fixed(value, places);
  const [whole, part] = text.split(".");
  const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part === undefined ? "" : "." + part);
  return value < 0 && Number(text) !== 0 ? MINUS + marked : marked;
}

export const percent = (fraction, places = 1) => (known(fraction) ? decimal(fraction * 100, places) + SPACE + "%" : NONE);

export function points(fraction) {
  if (!known(fraction)) return NONE;
  const text = decimal(fraction * 100, 1);
  return text + SPACE + (text === "1.0" || text === MINUS + "1.0" ? "point" : "points");
}

export function signedPoints(fraction) {
  if (!known(fraction)) return NONE;
  return (fraction > 0 && Number(fixed(fraction * 100, 1)) > 0 ? "+" : "") + points(fraction);
}

export function significant(value, figures = 3) {
  if (!known(value)) return NONE;
  if (value === 0) return "0";
  const places = Math.max(0, figures - 1 - Math.floor(Math.log10(Math.abs(value))));
  const text = decimal(value, Math.min(places, 60));
  return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

export function figure(value) {
  if (!known(value) || value === 0 || (Math.abs(value) >= 1e-4 && Math.abs(value) < 1e9)) return significant(value);
  const [digits, power] = Math.abs(value).toExponential(2).split("e");
  const short = digits.replace(/0+$/, "").replace(/\.$/, "");
  return `${value < 0 ? MINUS : ""}${short}e${power < 0 ? MINUS : ""}${Math.abs(power)}`;
}

export function milliseconds(value) {
  if (!known(value)) return NONE;
  if (Math.abs(value) >= 1000) return seconds(value / 1000);
  return significant(value, Math.abs(value) < 10 ? 2 : 3) + SPACE + "ms";
}

export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 60) return significant(value, value < 10 ? 2 : 3) + SPACE + "s";
  const whole = Number(fixed(value, 0));
  let minutes = Math.floor(whole / 60);
  const rest = whole % 60;
  if (minutes < 60) return minutes + SPACE + "min" + (rest ? ` ${rest}${SPACE}s` : "");
  const hours = Math.floor(minutes / 60);
  minutes %= 60;
  return hours + SPACE + "h" + (minutes ? ` ${minutes}${SPACE}min` : "");
}

export const span = (value) => (value >= 172800 ? count(Math.floor(value / 86400)) + SPACE + "days" : seconds(value));
export const count = (value) => decimal(value, 0);
export const plural = (number, one) => `${count(number)} ${number === 1 ? one : one + "s"}`;

export function age(past) {
  for (const [unit, length, least] of [["days", 86400, 172800], ["h", 3600, 3600], ["min", 60, 60], ["s", 1, 5]]) {
    if (past >= least) return `${count(Math.floor(past / length))}${SPACE}${unit} ago`;
  }
  return "just now";
}
