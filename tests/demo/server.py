#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-3.0-or-later OR GPL-2.0-or-later
"""The web server of the demo.  usage: server.py ADDRESS PORT

  /hello   one line of text
  /count   the numbers 1 to 40, one each tenth of a second, in one connection
  /big     4 MB that compress badly
"""

import hashlib
import http.server
import sys
import time

BIG = b''.join(hashlib.sha256(str(i).encode()).digest() for i in range(131072))


class Handler(http.server.BaseHTTPRequestHandler):
    def start(self, length=None):
        self.send_response(200)
        self.send_header('Content-Type', 'text/plain')
        if length is not None:
            self.send_header('Content-Length', str(length))
        self.end_headers()

    def do_GET(self):
        if self.path == '/hello':
            self.start(13)
            self.wfile.write(b'Hello, world\n')
        elif self.path == '/big':
            self.start(len(BIG))
            self.wfile.write(BIG)
        elif self.path == '/count':
            self.start()
            for i in range(1, 41):
                self.wfile.write(b'%d\n' % i)
                time.sleep(0.1)
        else:
            self.send_error(404)

    def log_message(self, *_args):
        pass


if __name__ == '__main__':
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
