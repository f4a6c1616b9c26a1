/* Where the figures come from: the stream, else polling. Owns the connection and the token; knows no page.
 *
 * EventSource cannot send a token, so the stream is read through fetch. A hidden tab gives its connection back
 * (a browser keeps six to one server) and polls. Nobody is told "live" without a figure in time: `onCut` comes
 * when none has come for as long as one should have taken.
 */

const TOKEN = "pgreflex.token";
const HIDDEN_POLL = 10_000;
const POLL = 2_000;
const SLACK = 4_500; // above the 3 s after which the server itself gives up on its figures
const FIRST_FIGURE = 6_000; // a proxy that holds the stream back shows by then
const LONGEST_PAUSE = 15_000;

export function remember(token) { sessionStorage.setItem(TOKEN, token); }
export function forget() { sessionStorage.removeItem(TOKEN); }
export function remembered() { return sessionStorage.getItem(TOKEN); }

export class Source {
  /** handlers: onStatus(status), onProblem({detail, hint}), onCut(reason), onDoor(tried). */
  constructor(handlers) {
    this.handlers = handlers;
    this.pause = 1000;
    this.streamWorks = true;
    this.etag = null;
    this.last = null;
    this.round = 0;
    document.addEventListener("visibilitychange", () => this.restart());
    window.addEventListener("online", () => this.restart());
  }

  /** Begin, or begin anew at once. */
  restart() {
    this.round += 1;
    this.control?.abort();
    clearTimeout(this.watch);
    this.pause = 1000;
    this.streamWorks = true;
    this.loop(this.round);
  }

  async loop(round) {
    while (round === this.round) {
      const control = (this.control = new AbortController());
      try {
        const streams = this.streamWorks && !document.hidden;
        this.expect(document.hidden ? HIDDEN_POLL + SLACK : FIRST_FIGURE);
        if (streams) await this.read(control, round);
        else await this.poll(control, round);
      } catch (error) {
        if (round !== this.round) return;
        if (error instanceof Closed) { this.handlers.onDoor(error.tried); clearTimeout(this.watch); return; }
        if (!this.cutShown) this.cut(error instanceof Refused ? error.message : null);
      }
      control.abort();
      if (round !== this.round) return;
      await sleep(this.pause * (0.5 + Math.random()));
      this.pause = Math.min(this.pause * 1.6, LONGEST_PAUSE);
    }
  }

  /** The stream, until it ends. */
  async read(control, round) {
    const response = await this.ask("/api/v1/stream", control, { Accept: "text/event-stream" });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let heard = false;
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done || round !== this.round) break;
        text += value;
        let end;
        while ((end = text.indexOf("\n\n")) >= 0) {
          heard = this.event(text.slice(0, end)) || heard;
          text = text.slice(end + 2);
        }
      }
    } finally {
      // open and mute: something on the way holds the stream back
      if (!heard && control.signal.reason === "mute") this.streamWorks = false;
    }
    throw new Refused("The server closed the stream.");
  }

  /** One event: its lines. True when it carried something. */
  event(block) {
    const fields = { event: "message", data: "" };
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
    }
    if (!fields.data) return false;
    this.deliver(fields.event, JSON.parse(fields.data), 1000);
    return true;
  }

  /** Ask again and again, until the tab comes or goes. */
  async poll(control, round) {
    while (round === this.round) {
      const every = document.hidden ? HIDDEN_POLL : POLL;
      const response = await this.ask("/api/v1/status", control, this.etag ? { "If-None-Match": this.etag } : {});
      if (response.status === 304 && this.last) this.deliver("message", this.last, every);
      else {
        this.etag = response.headers.get("ETag");
        this.deliver("message", await response.json(), every);
      }
      await sleep(every);
    }
  }

  async ask(path, control, headers) {
    const token = remembered();
    if (token) headers.Authorization = "Bearer " + token;
    const response = await fetch(path, { headers, signal: control.signal, cache: "no-store" });
    if (response.status === 401) throw new Closed(token !== null);
    if (!response.ok && response.status !== 304) {
      const problem = await response.json().catch(() => ({}));
      throw new Refused(problem.detail ?? "The server answered " + response.status + ".");
    }
    return response;
  }

  deliver(kind, body, every) {
    this.pause = 1000;
    this.cutShown = false;
    this.expect(every + SLACK);
    if (kind === "problem") this.handlers.onProblem(body);
    else this.handlers.onStatus((this.last = body));
  }

  /** Within this time something must come, or the figures are not live. */
  expect(time) {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => { this.cut(null); this.control?.abort("mute"); }, time);
  }

  cut(reason) {
    this.cutShown = true;
    this.etag = null;
    this.handlers.onCut(reason);
  }
}

class Closed extends Error {
  constructor(tried) { super("a token is needed"); this.tried = tried; }
}

class Refused extends Error {}

function sleep(time) { return new Promise((done) => setTimeout(done, time)); }
