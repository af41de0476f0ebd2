// The start page: whether the swarm is up, where to go on, and the labs in their order.

import { emptyCard, showCard } from "./card.js";
import { button, element, inPoints, refill } from "./elements.js";

const OPEN = "labkit:open-start";

export function startPage({ application, apputils, widgets }, server, feed) {
  class Start extends widgets.Widget {
    constructor(open) {
      super();
      this.id = "labkit-start";
      this.addClass("labkit-page");
      this.title.label = "Labs";
      this.title.caption = "Where you are, and where to go on";
      this.title.closable = true;
      this.node.tabIndex = -1;
      this.open = open;
      this.swarm = emptyCard();
      this.next = element("div", { class: "labkit-next", "aria-live": "polite" });
      this.back = element("div", { "aria-live": "polite" });
      this.list = element("ol", { class: "labkit-labs", "aria-label": "The labs" });
      this.node.append(
        element(
          "div",
          { class: "labkit-column" },
          element("h1", {}, "Container networking, by experiment"),
          element(
            "p",
            { class: "labkit-lead" },
            "An article explains how Docker Swarm finds a service, and it is partly wrong. In these labs you ",
            "find out what is true: you type commands in a real swarm, you measure, and you decide.",
          ),
          this.swarm,
          this.next,
          element("h2", {}, "The labs"),
          this.list,
          this.back,
        ),
      );
    }

    onAfterAttach() {
      this.onAfterShow();
    }

    onAfterShow() {
      if (this.isVisible) {
        this.stop ??= feed.follow(() => showCard(this.swarm, feed, server, apputils));
        this.refresh();
      }
    }

    onBeforeHide() {
      this.stop?.();
      this.stop = null;
    }

    onBeforeDetach() {
      this.onBeforeHide();
    }

    // What was marked and given back, each page in a tab of its own.
    async fetch() {
      try {
        const { told, pages } = await server.fetch();
        refill(this.back, givenBack(told, () => this.fetch(), pages, this.open));
      } catch (problem) {
        refill(this.back, givenBack([`${problem.message}. ${problem.hint}`], () => this.fetch()));
      }
    }

    async refresh() {
      try {
        const rows = await server.labs();
        refill(this.next, whereToGoOn(rows, this.open));
        refill(this.list, rows.map((row) => labRow(row, this.open)));
        const { course } = await server.class();
        if (course && !this.back.hasChildNodes()) {
          refill(this.back, givenBack([], () => this.fetch()));
        }
      } catch (problem) {
        refill(this.next, element("p", { class: "labkit-problem" }, `${problem.message}. ${problem.hint}`));
      }
    }
  }

  return {
    id: "labkit:start",
    description: "The page where a learner begins.",
    autoStart: true,
    requires: [application.ILabShell],
    optional: [apputils.ICommandPalette],
    activate(app, shell, palette) {
      let page = null;
      const add = (options) => {
        if (!page || page.isDisposed) {
          page = new Start((name) => app.commands.execute("docmanager:open", { path: name }));
        }
        if (!page.isAttached) {
          shell.add(page, "main", options);
        }
      };
      app.commands.addCommand(OPEN, {
        label: "Start page of the labs",
        caption: "Where you are, and where to go on",
        execute() {
          add({});
          shell.activateById(page.id);
        },
      });
      palette?.addItem({ command: OPEN, category: "labkit" });
      const whenEmpty = () => {
        if (shell.isEmpty("main")) {
          app.commands.execute(OPEN);
        }
      };
      // Whoever comes back finds what was open, with this page beside it.
      app.restored.then(() => {
        whenEmpty();
        add({ activate: false });
        shell.layoutModified.connect(whenEmpty);
      });
    },
  };
}

// The lab to go on with: the last one that was begun and is not done, else the first that was not begun.
function whereToGoOn(rows, open) {
  const begun = rows.filter((row) => row.run > 0 && row.passed < row.checks);
  const row = begun.at(-1) ?? rows.find((one) => one.run === 0);
  if (!row) {
    return element("p", {}, "Every check of every lab has passed.");
  }
  const word = begun.length ? "Go on with" : "Begin with";
  return button(`${word} ${number(row)} ${row.title}`, () => open(row.name), {
    class: "labkit-button labkit-main",
    "data-key": "next",
  });
}

function number(row) {
  return row.name.slice(0, 2);
}

function labRow(row, open) {
  const heading = button(row.title, () => open(row.name), {
    class: "labkit-title",
    disabled: !row.there,
    "data-key": row.name,
  });
  return element(
    "li",
    { class: "labkit-lab" },
    element("span", { class: "labkit-number", "aria-hidden": "true" }, number(row)),
    element(
      "div",
      { class: "labkit-about" },
      element("h3", {}, heading),
      element("p", {}, row.about),
      row.problem && element("p", { class: "labkit-problem" }, row.problem),
      !row.there && element("p", { class: "labkit-problem" }, "Not in this folder: labkit lab copies it again."),
    ),
    progress(row),
  );
}

function progress(row) {
  if (!row.checks) {
    return element("div", { class: "labkit-progress" });
  }
  return element(
    "div",
    { class: "labkit-progress" },
    element("progress", {
      max: row.checks,
      value: row.passed,
      "aria-label": `Checks passed in ${row.title}`,
    }),
    element("div", {}, row.run ? `${row.passed} of ${row.checks} checks passed` : `${row.checks} checks`),
    row.run > 0 && element("div", {}, `${inPoints(row.points)} of ${inPoints(row.of)} points`),
  );
}

function givenBack(told, fetch, pages = [], open = null) {
  return element(
    "section",
    { "aria-label": "Given back" },
    element("h2", {}, "Given back"),
    button("Fetch what was marked", fetch, { "data-key": "fetch" }),
    told.map((sentence) => element("p", {}, sentence)),
    element(
      "ul",
      {},
      pages.map((page) => {
        const name = page.split("/").at(-1).replace(/\.html$/, "").replaceAll("_", " ");
        return element("li", {}, button(name, () => open(page), { class: "labkit-title", "data-key": page }));
      }),
    ),
  );
}
