"""An ordinary web server with a network behind it: arrays come in as one .npz file, scores go out as bytes. Notebook 03 runs it."""

import io
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

network = onnxruntime.InferenceSession(sys.argv[1])


class Tagger(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection for many requests
    wbufsize = -1  # one packet for each answer

    def do_POST(self):
        arrays = np.load(io.BytesIO(self.rfile.read(int(self.headers["Content-Length"]))))
        (scores,) = network.run(None, dict(arrays))
        self.send_response(200)
        self.send_header("Content-Length", str(scores.nbytes))
        self.end_headers()
        self.wfile.write(scores.tobytes())

    def log_message(self, *words):
        """Say nothing about each request."""


web = ThreadingHTTPServer(("127.0.0.1", 0), Tagger)  # port 0: any that is free
threading.Thread(target=web.serve_forever, daemon=True).start()
print(web.server_port, flush=True)
sys.stdin.read()  # ends with the notebook that started it
