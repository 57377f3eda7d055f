// Drawings: landmarks on the picture, the head as the pose turns it, and the scale of similarities.

import { el, svg } from "./dom.js";
import { number, t } from "./texts.js";

/** Five dots of constant size over a picture of so many pixels. Pixel centres are whole numbers, as in the service. */
export function landmarkDots(points, width, height) {
  return svg(
    "svg",
    { viewBox: `-0.5 -0.5 ${width} ${height}`, class: "landmarks", role: "img", "aria-label": t("landmarksAlt") },
    ["halo", "dot"].map((layer) =>
      points.map(([x, y]) => svg("path", { d: `M${x} ${y}h.001`, class: layer, "vector-effect": "non-scaling-stroke" })),
    ),
  );
}

// Lines through the 68 landmarks of 300-W: where each begins and ends, and whether it is closed.
const LINES = [
  ["jaw", 0, 16, false], ["brow", 17, 21, false], ["brow", 22, 26, false], ["nose", 27, 30, false],
  ["nose", 31, 35, false], ["eye", 36, 41, true], ["eye", 42, 47, true], ["lip", 48, 59, true], ["lip", 60, 67, true],
];
const NOSE_TIP = 30;
const GAZE_LENGTH = 0.8;
// The top of the head, which has no landmarks: half an ellipse in the plane of the jaw's ends.
const CROWN = Array.from({ length: 25 }, (_, step) => {
  const angle = (Math.PI * step) / 24;
  return [-0.63 * Math.cos(angle), -0.3 - 0.78 * Math.sin(angle), -0.31 + 0.2 * Math.sin(angle)];
});

/** The mean face of 68 points, x right, y down, z towards the viewer, from the service's own file. */
export async function loadShape() {
  const text = await (await fetch("page/mean_shape_68.csv")).text();
  return text.trim().split("\n").filter((line) => !line.startsWith("#")).map((line) => line.split(",").map(Number));
}

/** How `pose` (degrees) turns a point: pitch first, then yaw, then roll, as docs/http-api.md defines them. */
export function turned([x, y, z], { yaw, pitch, roll }) {
  const [a, b, c] = [yaw, pitch, roll].map((degrees) => (degrees * Math.PI) / 180);
  [y, z] = [y * Math.cos(b) - z * Math.sin(b), y * Math.sin(b) + z * Math.cos(b)];
  [x, z] = [x * Math.cos(a) + z * Math.sin(a), z * Math.cos(a) - x * Math.sin(a)];
  return [x * Math.cos(c) - y * Math.sin(c), x * Math.sin(c) + y * Math.cos(c), z];
}

/** A line drawing of a head with this pose, and a line from its nose in the direction it faces. */
export function poseHead(shape, pose) {
  const points = shape.map((point) => turned(point, pose));
  const place = ([x, y]) => `${x.toFixed(3)} ${y.toFixed(3)}`;
  const [tip, ahead] = [points[NOSE_TIP], turned([0, 0, GAZE_LENGTH], pose)];
  const lines = LINES.map(([part, first, last, closed]) =>
    svg("path", { class: part, d: `M${points.slice(first, last + 1).map(place).join("L")}${closed ? "Z" : ""}` }),
  );
  const end = [tip[0] + ahead[0], tip[1] + ahead[1]];
  const label = t("poseAlt", Object.fromEntries(Object.entries(pose).map(([name, angle]) => [name, number(angle)])));
  return svg(
    "svg",
    { viewBox: "-1 -1.25 2 2", class: "pose", role: "img", "aria-label": label },
    svg("path", { class: "straight", d: "M-0.95 -0.25H0.95M0 -1.2V0.7" }),
    svg("path", { class: "jaw", d: `M${CROWN.map((point) => place(turned(point, pose))).join("L")}` }),
    lines,
    svg("path", { class: "gaze", d: `M${place(tip)}L${place(end)}` }),
    svg("circle", { class: "gaze-end", cx: end[0], cy: end[1], r: 0.035 }),
  );
}

/** The ends of a scale that shows the similarity and all thresholds: strangers score near 0, or near 0.8 with dlib. */
export function scaleEnds(value, thresholds) {
  const lowest = thresholds.length ? Math.min(...thresholds.map((each) => each.similarity)) : 0.25;
  const step = 1 - lowest > 0.4 ? 0.2 : 0.05;
  const low = Math.min(value - step / 2, lowest - (1 - lowest) * 0.6);
  return [Math.max(-1, Math.floor(low / step) * step), 1, step];
}

/** The scale with the similarity and the thresholds marked. */
export function scale(value, thresholds) {
  const [low, high, step] = scaleEnds(value, thresholds);
  const digits = step < 0.1 ? 2 : 1;
  const at = (element, similarity) => {
    element.style.left = `${((Math.min(similarity, high) - low) / (high - low)) * 100}%`;
    return element;
  };
  const ticks = [];
  for (let tick = low; tick <= high + step / 2; tick += step) {
    ticks.push(at(el("span", { class: "tick" }, number(Math.abs(tick) < step / 2 ? 0 : tick, digits)), tick));
  }
  const marks = thresholds.map((each) =>
    at(el("span", { class: "mark" }, el("span", { class: "mark-text" }, t("oneOf", { n: number(1 / each.far) }))), each.similarity),
  );
  const named = thresholds.map((each) => `${number(each.similarity, 3)}: ${t("oneOf", { n: number(1 / each.far) })}`);
  const label = t(thresholds.length ? "similarityAlt" : "similarityAltNone", {
    low: number(low, digits), high: number(high, digits), value: number(value, 3), marks: named.join("; "),
  });
  const line = at(el("span", { class: "reach" }), low);
  line.style.width = `${((value - low) / (high - low)) * 100}%`;
  return el(
    "div",
    { class: "scale", role: "img", "aria-label": label },
    el("div", { class: "track" }, line, marks, at(el("span", { class: "value" }), value)),
    el("div", { class: "ticks" }, ticks),
  );
}

/** Move the names of thresholds that would overlap to a row of their own. The scale must be in the page. */
export function separateMarks(scaleElement) {
  const ends = [];
  const texts = [...scaleElement.querySelectorAll(".mark-text")];
  texts.sort((one, other) => one.getBoundingClientRect().left - other.getBoundingClientRect().left);
  for (const text of texts) {
    text.dataset.row = "0";
    const { left, right } = text.getBoundingClientRect();
    let row = 0;
    while (ends[row] > left - 6) row += 1;
    ends[row] = right;
    text.dataset.row = String(row);
  }
  scaleElement.dataset.rows = String(ends.length);
}
