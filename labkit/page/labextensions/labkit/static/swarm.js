// The swarm beside the notebook: what there is, live, and what can be done to it by a click.

import { emptyCard, showCard } from "./card.js";
import { agreed } from "./dialog.js";
import { button, element, refill } from "./elements.js";
import { Trace } from "./trace.js";

const OPEN = "labkit:open-swarm";
const COLOURS = 7; // classes labkit-colour-0 and so on in style.css
const NEWEST = 8; // commands that are listed

export function swarmPanel({ application, apputils, notebook, widgets }, server, feed) {
  class Swarm extends widgets.Widget {
    constructor(openTerminal, putIntoNotebook) {
      super();
      this.id = "labkit-swarm";
      this.addClass("labkit-page");
      this.addClass("labkit-panel");
      this.title.label = "Swarm";
      this.title.caption = "Your swarm, live";
      this.openTerminal = openTerminal;
      this.putIntoNotebook = putIntoNotebook;
      this.done = []; // what was clicked, the newest first
      this.unfolded = new Set();
      this.via = new Map(); // service -> the node that was chosen for it
      this.trace = new Trace(server, () => this.draw());
      this.card = emptyCard();
      this.box = element("div");
      this.message = element("div", { role: "status", class: "labkit-message" });
      this.commands = element("section", { "aria-label": "What you did" });
      this.checkpoint = "before"; // the name that is typed for the next one
      this.node.append(this.card, this.box, this.message, this.commands);
    }

    onAfterAttach() {
      this.onAfterShow();
    }

    onAfterShow() {
      if (this.isVisible) {
        this.stop ??= feed.follow(() => this.draw());
      }
    }

    onBeforeHide() {
      this.stop?.();
      this.stop = null;
    }

    onBeforeDetach() {
      this.onBeforeHide();
    }

    draw() {
      const seen = feed.failed ? null : feed.state?.seen;
      this.trace.renew(seen, feed.state?.version);
      showCard(this.card, feed, server, apputils);
      refill(
        this.box,
        seen && this.nodes(seen),
        seen && this.services(seen),
        seen && this.networks(seen),
        seen && this.keeping(feed.state),
      );
    }

    // --- what there is ---------------------------------------------------------------------------

    nodes(seen) {
      const colour = new Map(seen.services.map((row, at) => [row.name, at % COLOURS]));
      const waiting = seen.tasks.filter((task) => !task.node && !task.ended);
      return element(
        "section",
        { "aria-label": "Nodes" },
        element("h3", {}, "Nodes and their tasks"),
        seen.nodes.map((row) =>
          element(
            "div",
            { class: `labkit-node${row.state === "ready" ? "" : " labkit-away"}` },
            this.fold(`node ${row.name}`, line(row), [
              this.click(row.availability === "drain" ? "Give it tasks again" : "Drain", {
                do: row.availability === "drain" ? "activate" : "drain",
                node: row.name,
              }),
              row.role !== "manager" && this.click("Cut it off", { do: "lose", node: row.name }),
              row.role !== "manager" && this.click("Connect it again", { do: "return", node: row.name }),
              this.terminal("Terminal", { node: row.name }),
              this.terminal("Terminal in ingress_sbox", { node: row.name, netns: "ingress_sbox" }),
            ]),
            element(
              "ul",
              { "aria-label": `Tasks on ${row.name}` },
              seen.tasks
                .filter((task) => task.node === row.name)
                .map((task) => this.task(task, colour.get(task.service))),
            ),
            this.trace.stepsOn(row.name),
          ),
        ),
        waiting.length > 0 &&
          element(
            "div",
            { class: "labkit-node" },
            element("p", {}, "Tasks that have no node yet"),
            element("ul", {}, waiting.map((task) => this.task(task, colour.get(task.service)))),
          ),
      );
    }

    task(row, colour) {
      const addresses = Object.entries(row.addresses).map(([name, address]) => `${address} on ${name}`);
      const detail = [
        addresses.length > 0 && element("p", {}, addresses.join(", ")),
        row.error && element("p", {}, row.error),
        element("p", {}, `Container ${row.container.slice(0, 12) || "none yet"}`),
      ];
      const runs = row.state === "running" && row.desired === "running";
      const clicks = runs && [
        this.click("Kill it", { do: "kill", task: row.name }),
        this.terminal("Terminal", { task: row.name }),
        this.terminal("Terminal in its namespace", { task: row.name, sandbox: true }),
      ];
      return element(
        "li",
        { class: `labkit-task labkit-colour-${colour}${row.ended ? " labkit-ended" : ""}` },
        this.fold(`task ${row.name} ${row.container}`, line(row), [detail, clicks]),
      );
    }

    services(seen) {
      return element(
        "section",
        { "aria-label": "Services" },
        element("h3", {}, "Services"),
        seen.services.length === 0 && element("p", {}, "None yet."),
        seen.services.map((row, at) =>
          element(
            "div",
            { class: `labkit-service labkit-colour-${at % COLOURS}` },
            element(
              "div",
              { class: "labkit-row" },
              element("strong", {}, row.name),
              ` ${row.told}`,
              row.mode === "replicated" && this.scaling(row),
            ),
            row.ports.length > 0 && element("p", {}, `Published: ${row.ports.join(", ")}`),
            Object.entries(row.addresses).map(([name, address]) =>
              element("p", {}, `Virtual IP ${address} on ${name}`),
            ),
            row.ports.length > 0 && this.asking(row, seen),
          ),
        ),
      );
    }

    // What can be asked of a published service, and the answer below.
    asking(row, seen) {
      const ask = (what) =>
        this.tell(async () => {
          this.note(await this.trace.ask({ service: row.name, ...what }));
        });
      const via = element(
        "select",
        { "aria-label": `The node that a request to ${row.name} comes to`, "data-key": `via ${row.name}` },
        seen.nodes.map((node) =>
          element("option", { selected: node.name === this.via.get(row.name) }, node.name),
        ),
      );
      via.addEventListener("change", () => this.via.set(row.name, via.value));
      return [
        element(
          "div",
          { class: "labkit-row" },
          button("Follow a request to", () => ask({ ask: "way", node: via.value }), {
            "data-key": `way ${row.name}`,
            "aria-label": `Follow a request to ${row.name}`,
          }),
          via,
          button("Balancers", () => ask({ ask: "balancers" }), {
            "data-key": `balancers ${row.name}`,
            "aria-label": `Balancers of ${row.name}`,
          }),
        ),
        this.trace.answerFor(row.name),
      ];
    }

    scaling(row) {
      const to = (count, sign, word) =>
        button(sign, () => this.act({ do: "scale", service: row.name, to: count }), {
          "aria-label": `${word} ${row.name} to ${count}`,
          title: `docker service scale ${row.name}=${count}`,
          disabled: count < 0,
          "data-key": `${word} ${row.name}`,
        });
      return element(
        "span",
        { class: "labkit-scale" },
        to(row.wanted - 1, "−", "Scale down"),
        element("span", { "aria-hidden": "true" }, String(row.wanted)),
        to(row.wanted + 1, "+", "Scale up"),
      );
    }

    networks(seen) {
      return element(
        "section",
        { "aria-label": "Overlay networks" },
        element("h3", {}, "Overlay networks"),
        element(
          "ul",
          {},
          seen.networks.map((row) =>
            element(
              "li",
              {},
              element("strong", {}, row.name),
              ` ${row.told}`,
            ),
          ),
        ),
      );
    }

    keeping(state) {
      const name = element("input", {
        type: "text",
        value: this.checkpoint,
        "aria-label": "Name of the checkpoint",
        "data-key": "checkpoint",
      });
      name.addEventListener("input", () => {
        this.checkpoint = name.value;
      });
      const save = () => this.act({ do: "save", checkpoint: this.checkpoint });
      return element(
        "section",
        { "aria-label": "Checkpoints" },
        element("h3", {}, "Checkpoints"),
        element("div", { class: "labkit-row" }, name, button("Save", save, { "data-key": "save" })),
        element(
          "ul",
          {},
          state.checkpoints.map((name) =>
            element(
              "li",
              { class: "labkit-row" },
              name,
              button("Go back to it", () => this.leave("Go back", { do: "restore", checkpoint: name }), {
                "aria-label": `Go back to ${name}`,
                "data-key": `restore ${name}`,
              }),
            ),
          ),
        ),
        button("Reset the swarm", () => this.leave("Reset", { do: "reset" }), { "data-key": "reset" }),
      );
    }

    // --- what can be done ------------------------------------------------------------------------

    fold(key, summary, inside) {
      const made = element(
        "details",
        { open: this.unfolded.has(key) },
        element("summary", { "data-key": key }, summary),
        element("div", { class: "labkit-inside" }, inside.flat(2).filter(Boolean)),
      );
      made.addEventListener("toggle", () => this.unfolded[made.open ? "add" : "delete"](key));
      return made;
    }

    click(label, what) {
      return button(label, () => this.act(what), {
        "data-key": Object.values(what).join(" "),
        "aria-label": `${label}: ${what.task ?? what.node}`,
      });
    }

    terminal(label, place) {
      return button(label, () => this.open(place), {
        "data-key": `${label} ${Object.values(place).join(" ")}`,
        "aria-label": `${label}: ${place.task ?? place.node}`,
      });
    }

    async act(what) {
      await this.tell(async () => {
        this.note(await server.act(what));
      });
    }

    // Asks first: what is in the swarm now will be gone.
    async leave(word, what) {
      if (await agreed(apputils, word)) {
        await this.act(what);
      }
    }

    async open(place) {
      await this.tell(async () => {
        const opened = await server.terminal(place);
        await this.openTerminal(opened.name, opened.place);
        this.note({ where: "", command: opened.command, shell: opened.shell });
      });
    }

    // Terminals outlive the page: what is typed there can be had after a reload, too.
    async findShells() {
      await this.tell(async () => {
        for (const { command, shell } of await server.shells()) {
          this.note({ where: "", command, shell });
        }
      });
    }

    // Says what went wrong, in the place of what was done.
    async tell(work) {
      refill(this.message);
      try {
        await work();
      } catch (problem) {
        refill(
          this.message,
          element("p", { class: "labkit-problem" }, problem.message),
          problem.hint && element("p", { class: "labkit-hint" }, problem.hint),
        );
      }
    }

    async putTyped(shell) {
      for (const cell of (await server.typed(shell)).cells) {
        await this.putIntoNotebook(cell);
      }
    }

    note(done) {
      // However old a shell is, what was typed in it can only be had here.
      this.done = [done, ...this.done].filter((row, at) => at < NEWEST || row.shell);
      refill(
        this.commands,
        element("h3", {}, "What you did"),
        this.done.map((row, at) =>
          element(
            "div",
            { class: "labkit-command" },
            element("code", {}, `${row.where}${row.where && " "}$ ${row.command}`),
            row.cell &&
              button("Put into the notebook", () => this.tell(() => this.putIntoNotebook(row.cell)), {
                "data-key": `cell ${at}`,
              }),
            row.shell &&
              button("Put what was typed into the notebook", () => this.tell(() => this.putTyped(row.shell)), {
                "data-key": `typed ${row.shell}`,
              }),
          ),
        ),
      );
    }
  }

  return {
    id: "labkit:swarm",
    description: "The swarm beside the notebook.",
    autoStart: true,
    requires: [application.ILabShell, notebook.INotebookTracker],
    optional: [apputils.ICommandPalette],
    activate(app, shell, tracker, palette) {
      const openTerminal = async (name, place) => {
        const page = await app.commands.execute("terminal:open", { name });
        page.title.label = place;
      };
      const panel = new Swarm(openTerminal, (cell) => insert(notebook, shell, tracker, cell));
      shell.add(panel, "right", { rank: 100 });
      panel.findShells();
      app.commands.addCommand(OPEN, {
        label: "Swarm beside the notebook",
        execute: () => shell.activateById(panel.id),
      });
      palette?.addItem({ command: OPEN, category: "labkit" });
      // At the first visit the swarm is there; afterwards JupyterLab remembers what a learner has closed.
      app.restored.then((layout) => {
        if (!layout?.rightArea?.widgets?.length) {
          shell.collapseLeft();
          shell.activateById(panel.id);
        }
      });
    },
  };
}

// A node or a task: its sign, its name, and what it is like.
function line(row) {
  return element(
    "span",
    {},
    element("span", { "aria-hidden": "true" }, `${row.sign} `),
    element("strong", {}, row.name),
    ` ${row.told}`,
  );
}

// Puts a cell below the one that is chosen in the notebook that was used last, and does not run it.
async function insert(notebook, shell, tracker, text) {
  const page = tracker.currentWidget;
  if (!page) {
    throw new Error("No notebook is open: open a lab first.");
  }
  shell.activateById(page.id);
  await page.context.ready;
  notebook.NotebookActions.insertBelow(page.content);
  page.content.activeCell.model.sharedModel.setSource(text);
}
