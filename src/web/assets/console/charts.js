// How do curves look? Inline SVG: a line for each curve, the ends of both axes, and a sentence for those who do not see it.

const CHART = { width: 360, height: 132, left: 46, right: 10, top: 10, bottom: 22 };

function shape(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** A number with as many digits as tell it from its neighbours. */
function short(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString();
  return String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 3)));
}

/** `curves`: [name, [[step, value], …]] pairs on common axes. */
function chart(title, curves) {
  const points = curves.flatMap(([, curve]) => curve);
  const [steps, values] = [points.map(([step]) => step), points.map(([, value]) => value)];
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const { width, height, left, right, top, bottom } = CHART;
  const x = (step) => left + ((width - left - right) * (step - first)) / Math.max(last - first, 1);
  // A curve that does not move lies in the middle.
  const y = (value) => (high === low ? (top + height - bottom) / 2 : top + ((height - top - bottom) * (high - value)) / (high - low));
  const text = (at, anchor, label) => shape("text", { x: at[0], y: at[1], "text-anchor": anchor }, label);
  const lines = curves.map(([, curve], index) => (curve.length === 1
    ? shape("circle", { class: `curve curve-${index}`, cx: x(curve[0][0]), cy: y(curve[0][1]), r: 2.5 })
    : shape("polyline", { class: `curve curve-${index}`, points: curve.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" ") })));
  const said = curves.map(([name, curve]) => `${name} went from ${short(curve[0][1])} to ${short(curve.at(-1)[1])}`).join("; ");
  const picture = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${said}, over steps ${first} to ${last}` },
    shape("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }),
    text([left - 6, top + 8], "end", short(high)), ...(high === low ? [] : [text([left - 6, height - bottom], "end", short(low))]),
    text([left, height - 6], "start", short(first)), text([width - right, height - 6], "end", short(last)), ...lines);
  const legend = curves.map(([name, curve], index) => h("span", { class: `key key-${index}` },
    `${curves.length > 1 ? name : "last"} ${short(curve.at(-1)[1])}`));
  return h("figure", { class: "chart" }, h("figcaption", {}, h("span", { class: "label" }, title), h("span", { class: "keys-of-chart" }, legend)), picture);
}
