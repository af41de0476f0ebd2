// How far the learner is in the lab that is open: each question with its outcome, hints, and handing in.

import { button, element, inPoints, refill, withCode } from "./elements.js";

const OPEN = "labkit:open-progress";
const SOON_MS = 250; // what changes at once is shown at once

// The words of labkit.outcomes, by the error that a check ends in.
const BY_ERROR = { CheckFailed: "fail", Unanswered: "unanswered" };
const SIGNS = {
  pass: "✓",
  fail: "▲",
  unanswered: "–",
  "could not run": "!",
  "not run": "○",
  "read by a person": "✎",
};

export function progressPanel({ application, apputils, notebook, widgets }, server) {
  class Progress extends widgets.Widget {
    constructor(tracker) {
      super();
      this.id = "labkit-progress";
      this.addClass("labkit-page");
      this.addClass("labkit-panel");
      this.title.label = "Progress";
      this.title.caption = "Which questions pass, and what is left";
      this.tracker = tracker;
      this.questions = new Map(); // name of a notebook -> its questions
      this.told = new Map(); // path of a notebook -> question -> what was told of it
      this.box = element("div");
      this.node.append(this.box);
      tracker.currentChanged.connect(() => this.soon());
      notebook.NotebookActions.executed.connect(() => this.soon());
      notebook.NotebookActions.outputCleared?.connect(() => this.soon());
    }

    onAfterAttach() {
      this.soon();
    }

    onAfterShow() {
      this.soon();
    }

    soon() {
      if (this.isVisible && !this.waiting) {
        this.waiting = setTimeout(() => {
          this.waiting = null;
          this.draw();
        }, SOON_MS);
      }
    }

    async draw() {
      const page = this.tracker.currentWidget;
      if (!page) {
        refill(this.box, element("p", {}, "Open a lab, and this shows how far you are in it."));
        return;
      }
      await page.context.ready;
      const name = page.context.path.split("/").at(-1);
      try {
        if (!this.questions.has(name)) {
          this.questions.set(name, await server.questions(name));
        }
        if (this.class?.course !== "") {
          this.class = await server.class(); // which labs are open changes; that there is a class does not
        }
      } catch (problem) {
        refill(this.box, element("p", {}, problem.message), element("p", {}, problem.hint));
        return;
      }
      if (this.tracker.currentWidget !== page) {
        return; // another one was opened meanwhile, and is drawn soon
      }
      const rows = outcomes(page, this.questions.get(name));
      const points = rows.reduce((sum, row) => sum + row.points, 0);
      const checks = rows.filter((row) => row.text);
      const passed = checks.filter((row) => row.outcome === "pass").length;
      refill(
        this.box,
        element("h2", {}, name.replace(/\.ipynb$/, "").replaceAll("_", " ")),
        element("progress", { max: checks.length, value: passed, "aria-label": "Checks passed" }),
        element(
          "p",
          { role: "status" },
          `${passed} of ${checks.length} checks passed, ${inPoints(points)} of ${inPoints(sum(checks))} points. `,
          "A person reads the answers in words.",
        ),
        element("ol", { "aria-label": "Questions" }, rows.map((row) => this.question(page, row))),
        button("Can this be handed in?", () => this.ask(page, "hand in", "submit_check()"), {
          "data-key": "hand in",
        }),
        this.saying(page, "hand in"),
        ...this.handingIn(page, name),
      );
    }

    // Only on the server of a class there is somebody to hand in to.
    handingIn(page, name) {
      if (!this.class.course) {
        return [];
      }
      const open = this.class.open.includes(name);
      const label = "Hand it in";
      const hands = button(label, () => this.handIn(page), { disabled: !open, "data-key": "hand it in" });
      return [
        element("div", { class: "labkit-row" }, hands),
        !open && element("p", {}, "This lab cannot be handed in yet."),
        this.saying(page, "hand it in"),
      ];
    }

    async handIn(page) {
      await page.context.save();
      this.tell(page, "hand it in", "Handing it in …");
      try {
        this.tell(page, "hand it in", (await server.handIn(page.context.localPath)).told.join("\n"));
      } catch (problem) {
        this.tell(page, "hand it in", `${problem.message}. ${problem.hint}`);
      }
    }

    question(page, row) {
      const sign = element("span", { "aria-hidden": "true" }, `${SIGNS[row.outcome]} `);
      const go = button(row.id, () => goTo(page, row.cell), {
        class: "labkit-title",
        "aria-label": `${row.id}: ${row.outcome}`,
        disabled: row.cell < 0,
        "data-key": `go ${row.id}`,
      });
      const wants = row.hints > 0 && row.outcome !== "pass";
      return element(
        "li",
        { class: "labkit-question" },
        element(
          "div",
          { class: "labkit-row" },
          element("span", {}, sign, go, ` ${row.outcome}`),
          element("span", { class: "labkit-points" }, `${inPoints(row.points)} of ${inPoints(row.of)}`),
          wants &&
            button("Hint", () => this.ask(page, row.id, `hint(${JSON.stringify(row.id)})`), {
              "aria-label": `Hint for ${row.id}`,
              "data-key": `hint ${row.id}`,
            }),
        ),
        this.saying(page, row.id),
      );
    }

    // Labs have questions of the same names, so each notebook has what was told of its own.
    tell(page, key, text) {
      const path = page.context.path;
      if (!this.told.has(path)) {
        this.told.set(path, new Map());
      }
      this.told.get(path).set(key, text);
      this.draw();
    }

    saying(page, key) {
      const text = this.told.get(page.context.path)?.get(key);
      return text !== undefined && element("p", { class: "labkit-hint", role: "status" }, withCode(text));
    }

    // Has the notebook's kernel say something, so that it is kept in the evidence as if it were typed.
    async ask(page, key, call) {
      const kernel = page.sessionContext.session?.kernel;
      if (!kernel) {
        this.tell(page, key, "The notebook has no kernel: run its first cell.");
        return;
      }
      await page.context.save();
      this.tell(page, key, "Waiting for the kernel …");
      const said = [];
      const asked = kernel.requestExecute({ code: `__import__("labkit").${call}`, store_history: true });
      asked.onIOPub = ({ header, content }) => {
        if (header.msg_type === "stream") {
          said.push(content.text);
        } else if (header.msg_type === "error") {
          said.push(content.evalue);
        }
      };
      try {
        const reply = await asked.done;
        const aborted = reply.content.status === "aborted";
        this.tell(page, key, aborted ? "A cell before it has failed: ask again." : said.join("").trim());
      } catch {
        this.tell(page, key, "The kernel was restarted meanwhile: ask again.");
      }
    }
  }

  return {
    id: "labkit:progress",
    description: "How far the learner is in the lab that is open.",
    autoStart: true,
    requires: [application.ILabShell, notebook.INotebookTracker],
    optional: [apputils.ICommandPalette],
    activate(app, shell, tracker, palette) {
      const panel = new Progress(tracker);
      shell.add(panel, "right", { rank: 101 });
      app.commands.addCommand(OPEN, {
        label: "Progress in this lab",
        execute: () => shell.activateById(panel.id),
      });
      palette?.addItem({ command: OPEN, category: "labkit" });
    },
  };
}

// Each question with the outcome of its check's cell: one whose text was changed does not count.
function outcomes(page, questions) {
  const cells = page.content.widgets.map((cell) => cell.model);
  return questions.map((question) => {
    const cell = cells.findIndex((model) => idOf(model) === question.cell);
    const outcome = question.text ? outcomeOf(cells[cell], question.text) : "read by a person";
    return { ...question, cell, outcome, points: outcome === "pass" ? question.of : 0 };
  });
}

function idOf(model) {
  return model.getMetadata("nbgrader")?.grade_id;
}

function outcomeOf(model, text) {
  if (!model?.executionCount || model.sharedModel.getSource().trim() !== text) {
    return "not run";
  }
  for (let at = 0; at < model.outputs.length; at += 1) {
    const output = model.outputs.get(at).toJSON();
    if (output.output_type === "error") {
      return BY_ERROR[output.ename] ?? "could not run";
    }
  }
  return "pass";
}

function goTo(page, at) {
  page.content.activeCellIndex = at;
  page.content.scrollToItem(at, "center");
  page.activate();
}

function sum(rows) {
  return rows.reduce((total, row) => total + row.of, 0);
}
