// Package gateway is a node's face to people and programs: the HTTP port with
// console, REST, WebSocket and metrics, and the control socket for the owner of
// the process.
//
// It puts the parts below it together and adds what all of them need: bounded
// connections and headers, security headers, refusal of cross-site requests,
// counting, and an end within 3 s. The parts: auth says who somebody is, rest
// answers questions and requests, ws feeds consoles, view holds what they say.
// What the node knows comes from the composer through small interfaces.
//
// New listens at once, so that a port in use is an error before anything runs;
// Run serves until its context ends. Only the composer imports this package.
package gateway
