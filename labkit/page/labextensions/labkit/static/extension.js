// The kit's plugins of JupyterLab: the start page, the swarm beside the notebook, and how far one is.

import { Feed } from "./follow.js";
import { progressPanel } from "./progress.js";
import { asking } from "./server.js";
import { startPage } from "./start.js";
import { swarmPanel } from "./swarm.js";

const NEEDED = {
  apputils: "@jupyterlab/apputils",
  application: "@jupyterlab/application",
  notebook: "@jupyterlab/notebook",
  services: "@jupyterlab/services",
  widgets: "@lumino/widgets",
};

export async function plugins(shared) {
  const names = Object.keys(NEEDED);
  const found = await Promise.all(names.map((name) => shared(NEEDED[name])));
  const lab = Object.fromEntries(names.map((name, at) => [name, found[at]]));
  addStyle();
  const server = asking(lab.services);
  const feed = new Feed(server);
  return [startPage(lab, server, feed), swarmPanel(lab, server, feed), progressPanel(lab, server)];
}

function addStyle() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("style.css", import.meta.url);
  document.head.append(link);
}
