// Package control is the master's remote control: HTTP with JSON over a unix
// socket in the runtime directory, its server, its client and the schema of
// what they exchange.
//
//	GET  /status   Status
//	GET  /healthz  200 "ok", or 503 with the reason in plain text
//	GET  /readyz   likewise
//	POST /reload   no body, or {}
//	POST /upgrade  no body, or {}
//	POST /scale    {"workers": 4} or {"delta": -1}
//	POST /weights  {"weights": {"1": 3, "2": 0}}, by slot
//	POST /stop     no body, {} or {"now": true}
//
// A POST is answered when its verdict is known, which may take as long as the
// deploy: 200 when it was done, 409 when it was refused or failed, 503 when it
// was refused because the service is stopping; the body is a Verdict each time.
// Everything else that goes wrong is {"error": "...", "schema": 1} with 400 (a
// malformed body), 403 (a foreign user), 404, 405 or 413.
//
// Client and server may be of different releases. A client ignores fields of an
// answer that it does not know. A server refuses those of a request: without them
// something else would be done than was asked for. Errors and the status tell the
// server's Schema.
//
// The server serves root and the user that it runs as, nobody else: the
// kernel's word on who is calling is asked once a connection.
package control
