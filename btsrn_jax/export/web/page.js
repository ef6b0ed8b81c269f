// The page: what a person chooses, and what they see. The work is done in worker.js.

const $ = (id) => document.getElementById(id);
const show = (id, yes) => ($(id).hidden = !yes);

let worker;
let file = null; // the picture that was chosen
let busy = false;
const addresses = { before: null, after: null }; // of what the two images show

const config = await (await fetch("models.json")).json();
for (const { scale, name } of config.models) {
  const label = document.createElement("label");
  label.innerHTML = `<input type="radio" name="scale" value="${scale}"> ×${scale}`;
  label.title = name;
  $("scales").append(label);
}
document.querySelector("[name=scale]").checked = true;
$("models").textContent = `Networks: ${config.models.map((m) => m.name).join(", ")}.`;

$("file").addEventListener("change", () => choose($("file").files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
$("sample").addEventListener("click", async () => {
  const bytes = await (await fetch(config.sample)).blob();
  choose(new File([bytes], config.sample, { type: bytes.type }));
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
$("cancel").addEventListener("click", () => worker.postMessage({ cancel: true }));
$("split").addEventListener("input", () =>
  $("compare").style.setProperty("--split", `${$("split").value}%`),
);
$("zoom").addEventListener("change", () =>
  $("compare").classList.toggle("zoom", $("zoom").checked),
);
choose($("file").files[0]); // while models.json was on its way

function choose(chosen) {
  if (!chosen || busy) return;
  file = chosen;
  $("chosen").textContent = file.name;
  $("start").disabled = false;
  show("problem", false);
}

function start() {
  if (!file || busy) return;
  work(true);
  $("bar").removeAttribute("value");
  $("status").textContent = "Loading the network";
  if (!worker) {
    worker = new Worker("worker.js", { type: "module" });
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = () => failed("The page's worker could not be started.");
  }
  const scale = Number(document.querySelector("[name=scale]:checked").value);
  worker.postMessage({ upscale: file, scale });
}

/** Shows that work begins or ends. */
function work(begins) {
  busy = begins;
  $("start").disabled = begins || !file;
  $("file").disabled = $("sample").disabled = $("scales").disabled = begins;
  show("working", begins);
  if (begins) {
    show("problem", false);
    show("result", false);
  }
}

function failed(sentence) {
  work(false);
  $("problem").textContent = sentence;
  show("problem", true);
}

function heard(message) {
  if (message.runs) $("runs").textContent = message.runs;
  if (message.progress) {
    const { done, tiles, left } = message.progress;
    $("bar").value = done / tiles;
    const time = left === null ? "" : `, ${clock(left)} left`;
    $("status").textContent = `${Math.floor((100 * done) / tiles)} %${time}`;
  }
  if (message.problem) failed(message.problem);
  if (message.cancelled) {
    work(false);
    $("start").focus();
  }
  if (message.done) finished(message);
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function finished({ done, width, height, seconds }) {
  work(false);
  put("before", file);
  put("after", done);
  $("compare").style.setProperty("--width", `${width / devicePixelRatio}px`);
  const megapixels = (width * height) / 1e6;
  $("size").textContent =
    `${width} × ${height} pixels in ${seconds.toFixed(1)} s ` +
    `(${(megapixels / seconds).toPrecision(2)} megapixels a second)`;
  $("save").href = addresses.after;
  const scale = document.querySelector("[name=scale]:checked").value;
  $("save").download = `${file.name.replace(/\.[^.]*$/, "")}-x${scale}.png`;
  show("result", true);
  $("split").focus();
}

function put(image, blob) {
  if (addresses[image]) URL.revokeObjectURL(addresses[image]);
  addresses[image] = URL.createObjectURL(blob);
  $(image).src = addresses[image];
}
