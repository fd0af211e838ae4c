// Browsers refuse workers to pages that are opened from the disk: there a hidden frame runs the worker's script.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.loaded = new Promise((resolve) => {
        this.frame.addEventListener("load", () => this.start(url, resolve), { once: true });
      });
      document.documentElement.append(this.frame);
    }

    start(url, resolve) {
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => setTimeout(() => this.tell(new MessageEvent("message", { data })));
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href);
      script.onload = () => resolve(inside);
      script.onerror = () => this.onerror?.(new ErrorEvent("error"));
      inside.document.head.append(script);
    }

    tell(event) {
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }

    postMessage(data) {
      this.loaded.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
