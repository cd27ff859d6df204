// The page works without this script. It asks before it revokes in a dialog, filters settings, and shows new figures and new
// lines of the audit log, which come as markup of the gate.
"use strict";

const dialog = document.getElementById("confirm");
for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    const selected = [...form.elements].filter((field) => field.type === "checkbox" && field.checked);
    // The gate says that nothing is selected.
    if (!dialog || (form.id === "several" && selected.length === 0)) return;
    event.preventDefault();
    const post = dialog.querySelector("form");
    post.action = form.dataset.post;
    for (const old of post.querySelectorAll("[data-copied]")) old.remove();
    for (const field of [...form.querySelectorAll("input[type=hidden]"), ...selected]) {
      const copy = document.createElement("input");
      [copy.type, copy.name, copy.value, copy.dataset.copied] = ["hidden", field.name, field.value, ""];
      post.append(copy);
    }
    const { confirm, detail = "", about = "" } = form.dataset;
    const number = selected.length === 1 ? "the selected session" : `${selected.length} selected sessions`;
    const question = selected.length > 0 ? confirm.replace("the selected sessions", number) : confirm;
    for (const [id, text] of [["question", question], ["question-detail", detail], ["question-about", about]]) {
      document.getElementById(id).textContent = text;
    }
    dialog.querySelector("button.danger").textContent = form.dataset.do;
    dialog.showModal();
  });
}

const parsed = (markup) => new DOMParser().parseFromString(markup, "text/html");

const live = document.getElementById("live");
if (live) {
  new EventSource(live.dataset.stream).onmessage = (message) => {
    for (const part of parsed(message.data).querySelectorAll("section[id]")) {
      const old = document.getElementById(part.id);
      const isOfCharts = part.id === "live-charts" && typeof charts !== "undefined";
      if (isOfCharts && charts.update(part)) continue;
      // The word at the foot of the bar is the same.
      const state = part.querySelector(":scope > .lead .state");
      if (state) Object.assign(document.querySelector(".bar .state"), { className: state.className, textContent: state.textContent });
      // Where somebody is with the keyboard stays as it is.
      if (old && !old.contains(document.activeElement) && old.innerHTML !== part.innerHTML) {
        old.replaceWith(part);
        if (isOfCharts) charts.begin();
      }
    }
  };
}

const follower = document.getElementById("follow");
const lines = document.getElementById("lines");
if (follower && lines) {
  let added = 0;
  // The stream begins with lines that the view may not show. Ids are in the order of time.
  const oldest = [...lines.rows].findLast((row) => row.id).id;
  let source;
  const add = (markup) => {
    // The line, and what it opens to.
    const rows = parsed(`<table>${markup}</table>`).querySelectorAll("tr");
    if (rows.length === 0 || rows[0].id < oldest || document.getElementById(rows[0].id)) return;
    lines.prepend(...rows);
    while (lines.rows.length > 2000) lines.lastElementChild.remove();
    added += 1;
    follower.textContent = added + (added === 1 ? " new line" : " new lines");
  };
  const follow = () => {
    source = new EventSource(follower.dataset.stream);
    source.onmessage = (message) => add(message.data);
  };
  const pause = document.createElement("button");
  pause.type = "button";
  pause.textContent = "Pause";
  pause.addEventListener("click", () => {
    if (source.readyState === EventSource.CLOSED) {
      follow();
      pause.textContent = "Pause";
    } else {
      source.close();
      pause.textContent = "Follow";
    }
  });
  follower.after(pause);
  follow();
}

const isNarrow = () => matchMedia("(max-width: 40rem)").matches;
for (const filters of document.querySelectorAll("details.filters")) filters.open = !isNarrow();

// The settings that match, at once. Without a filter: what the view showed first.
const filter = document.getElementById("filter");
if (filter) {
  const sections = [...document.querySelectorAll("details.section")];
  const hasAll = "all" in document.getElementById("sections").dataset;
  const counted = (number) => `${number} setting${number === 1 ? "" : "s"}`;
  const fold = () => sections.forEach((section) => (section.open = !isNarrow() || filter.value.trim() !== ""));
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter((word) => word);
    let all = 0;
    for (const section of sections) {
      const rows = [...section.querySelectorAll("tbody tr")];
      const isShown = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
      for (const row of rows) row.hidden = words.length > 0 ? !isShown(row) : row.className === "default" && !hasAll;
      const number = rows.filter((row) => !row.hidden).length;
      section.hidden = number === 0;
      section.querySelector("summary .hint").textContent = counted(number);
      all += number;
    }
    document.getElementById("number").textContent = counted(all);
    document.getElementById("nothing").hidden = all > 0;
    fold();
  });
  fold();
}
