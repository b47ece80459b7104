// Package ws serves the console's WebSocket, subprotocol skein.console.v1: who
// watches gets a picture of the fleet and then every change of it.
//
// The client speaks first, {type:"auth", token}, within 5 s, because a browser
// cannot put a header on a WebSocket; it is told welcome, and asks with
// {type:"watch", cursor, events} for a snapshot (no cursor) or to be resumed
// where it was, at this node or any other. After that only the server speaks.
//
// Order. To each client: welcome; then snapshot or resumed; then events, robots
// and fleet as they happen, events in the order of seq, each once, without a
// hole; a tick every 2 s. A cursor that this node has not reached yet is waited
// for: after 2 s behind tells how many events are missing, and again with each
// tick; the client is never sent back. What cannot be continued (another
// history, events no longer held, too many missed) is a snapshot with reset and
// the reason, never a silent gap.
//
// Cost. One hub computes what changed, at most four times a second, and only
// while somebody is connected; each change is encoded once and the same bytes
// go to all. A robot whose news only grew older is not a change: pages age what
// they show themselves.
//
// Backpressure. Nobody is waited for. A client has a queue of 256 messages or
// 1 MB; one that does not keep up is told so and closed with 1013. Only while a
// client is being caught up from disk does the reading wait for its queue.
//
// Close codes: 4401 not (or no longer) authenticated, 4403 may not read, 4408
// auth or watch came too late, 1008 a message that the protocol does not allow,
// 1009 a message over 16 KB, 1013 too slow, 1001 the node stops.
//
// Imported by the gateway only.
package ws
