// The page works without this: it adds dropping, progress, sliders, the heat map and live figures.

const upload = document.querySelector("#upload");

async function send(files) {
  const line = upload.querySelector(".progress");
  const bar = line.querySelector("progress");
  line.hidden = false;
  bar.value = 0;
  for (const [number, file] of files.entries()) {
    const form = new FormData();
    form.append("token", upload.elements.token.value);
    form.append("script", "1");
    form.append("files", file);
    const answer = await fetch("/photos", { method: "POST", body: form }).catch(() => null);
    if (!answer || answer.status !== 200) {
      if (answer) document.documentElement.innerHTML = await answer.text();
      else line.textContent = upload.dataset.lost;
      return;
    }
    bar.value = (number + 1) / files.length;
  }
  location.assign("/");
}

if (upload) {
  const input = upload.elements.files;
  upload.addEventListener("submit", (event) => {
    event.preventDefault();
    send([...input.files]);
  });
  input.addEventListener("change", () => input.files.length && send([...input.files]));
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      upload.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget || upload.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    upload.classList.remove("over");
    if (event.dataTransfer.files.length) send([...event.dataTransfer.files]);
  });
}

for (const compare of document.querySelectorAll(".compare")) {
  const slider = compare.querySelector("input");
  slider.addEventListener("input", () => compare.style.setProperty("--at", `${slider.value}%`));
}

function toggleHeat(button, image) {
  const shown = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!shown));
  image.src = `${button.dataset.heat}/${shown ? "view" : "heat"}.jpg`;
}

for (const button of document.querySelectorAll("[data-heat]")) {
  const figure = button.closest("figure");
  const image = figure.querySelector("img");
  const bar = figure.querySelector("progress");
  const text = figure.querySelector("[role=status]");
  let known = false;
  button.addEventListener("click", () => {
    if (known) return toggleHeat(button, image);
    button.disabled = true;
    bar.hidden = false;
    const source = new EventSource(`${button.dataset.heat}/heat`);
    const end = () => {
      source.close();
      button.disabled = false;
      bar.hidden = true;
      button.focus();
    };
    source.addEventListener("progress", (event) => (bar.value = Number(event.data)));
    source.addEventListener("found", (event) => {
      end();
      const found = JSON.parse(event.data);
      text.textContent = found.text;
      known = found.red;
      if (known) toggleHeat(button, image);
      else button.hidden = true;
    });
    source.addEventListener("refused", (event) => {
      end();
      text.textContent = JSON.parse(event.data);
    });
    source.addEventListener("error", end);
  });
}

const live = document.querySelector("#live");
if (live) {
  const source = new EventSource("/operators/live");
  const say = (text) => live.textContent === text || (live.textContent = text);
  source.addEventListener("figures", (event) => {
    document.querySelector("#figures").innerHTML = event.data;
    say(live.dataset.live);
  });
  source.addEventListener("letters", (event) => (document.querySelector("#letters").innerHTML = event.data));
  source.addEventListener("error", () => say(live.dataset.lost));
}
