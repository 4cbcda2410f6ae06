// Keeps what is shown fresh. Texts from the server are only ever inserted as text, or as elements that the server has
// rendered, in which every text is escaped.
"use strict";

(() => {
  const lost = document.getElementById("lost");
  const printed = document.getElementById("console");
  const most = 2_000_000; // Characters of console kept on the page.

  async function get(path) {
    const reply = await fetch(path, { credentials: "same-origin", cache: "no-store" });
    if (reply.status === 401) {
      location.reload(); // Signed out meanwhile: the reload shows the form.
    }
    if (!reply.ok) {
      throw new Error(`status ${reply.status}`);
    }
    return reply;
  }

  // What the server sent last, by id. The element itself may have changed since: an opened part, a chosen queue.
  const sent = new Map();
  for (const part of document.querySelectorAll("[data-live]")) {
    sent.set(part.id, part.innerHTML);
  }

  async function refresh() {
    const reply = await get(document.body.dataset.refresh);
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const news = fresh.getElementById(part.id);
      if (news === null || news.innerHTML === sent.get(part.id)) {
        continue;
      }
      sent.set(part.id, news.innerHTML);
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      part.replaceChildren(...news.childNodes);
      if (focused !== "") {
        document.getElementById(focused)?.focus();
      }
    }
  }

  async function follow() {
    let more = true;
    while (more) {
      const reply = await get(`${printed.dataset.url}?after=${printed.dataset.after}`);
      const news = await reply.json();
      if (news.cleared) {
        printed.replaceChildren();
      }
      printed.dataset.after = news.cleared ? 0 : news.after;
      if (news.text !== "") {
        const atEnd = printed.scrollHeight - printed.scrollTop - printed.clientHeight < 40;
        printed.append(news.text);
        while (printed.textContent.length > most && printed.childNodes.length > 1) {
          printed.firstChild.remove();
        }
        if (atEnd) {
          printed.scrollTop = printed.scrollHeight;
        }
      }
      more = news.more;
    }
  }

  // Repeats something for as long as somebody looks.
  function keep(doing, seconds) {
    const pause = () => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    (async () => {
      for (;;) {
        await pause();
        if (document.hidden) {
          continue;
        }
        try {
          await doing();
          lost.hidden = true;
        } catch (problem) {
          lost.hidden = false;
        }
      }
    })();
  }

  if (document.body.dataset.refresh !== undefined) {
    keep(refresh, Number(document.body.dataset.seconds));
  }
  if (printed !== null) {
    printed.scrollTop = printed.scrollHeight;
    keep(follow, 1);
  }
})();
