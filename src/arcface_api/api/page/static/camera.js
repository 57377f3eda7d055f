// The camera: shows what it sees with an outline of a face, and takes the square around that outline as a picture.

import { byId } from "./dom.js";
import { t } from "./texts.js";

/** The square that is taken, in sides of the one that is shown: what index.html does not shade. */
const CUT = { x: 0.5, y: 0.48, side: 0.8 };

const WORDS = {
  NotAllowedError: "cameraDenied",
  SecurityError: "cameraDenied",
  NotFoundError: "cameraNone",
  OverconstrainedError: "cameraNone",
};

let stream = null;

/** Ask for a photo; `taken` gets it as a file. */
export async function openCamera(taken) {
  const [dialog, video, shoot, text] = ["camera", "video", "shoot", "camera-text"].map(byId);
  const show = (name, values) => {
    text.textContent = t(name, values);
    byId("finder").hidden = shoot.hidden = name !== "cameraHint";
  };
  dialog.onclose = stop;
  byId("camera-close").onclick = () => dialog.close();
  shoot.onclick = async () => {
    taken(await photo(video));
    dialog.close();
  };
  dialog.showModal();
  if (!navigator.mediaDevices?.getUserMedia) {
    show("cameraInsecure", { origin: location.origin });
    return;
  }
  show("cameraAsking");
  try {
    const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" }, audio: false });
    if (!dialog.open) {
      opened.getTracks().forEach((track) => track.stop()); // closed while the browser was asking
      return;
    }
    stream = opened;
    video.srcObject = stream;
    await video.play();
    show("cameraHint");
    shoot.focus();
  } catch (error) {
    show(WORDS[error.name] ?? "cameraBusy");
  }
}

function stop() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  byId("video").srcObject = null;
}

/** What the square around the outline shows, unmirrored: a person looks into a mirror, the service at a photo. */
async function photo(video) {
  const shown = Math.min(video.videoWidth, video.videoHeight); // CSS shows the middle square
  const [left, top] = [(video.videoWidth - shown) / 2, (video.videoHeight - shown) / 2];
  const side = Math.round(CUT.side * shown);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const x = left + (CUT.x - CUT.side / 2) * shown;
  const y = top + (CUT.y - CUT.side / 2) * shown;
  canvas.getContext("2d").drawImage(video, x, y, side, side, 0, 0, side, side);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  return new File([blob], t("photoName"), { type: "image/jpeg" });
}
