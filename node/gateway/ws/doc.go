// Package ws serves two WebSockets: the console's, subprotocol skein.console.v1,
// where who watches gets a picture of the fleet and then every change of it; and
// that of programs, skein.events.v1, where they get the events of the log.
//
// # The console
//
// The client speaks first, {type:"auth", token}, within 5 s, because a browser
// cannot put a header on a WebSocket; it is told welcome, and asks with
// {type:"watch", cursor, events} for a snapshot (no cursor) or to be resumed
// where it was, at this node or any other. After that it may ask for the fleet as
// it was, with {type:"at", at}, and is answered with past; all else only the
// server says.
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
// # Events
//
// After auth, {type:"watch", cursor | since, filter} names a place in the log and
// what to leave out; without a place it begins at the present. The answers are
// the frames of package consensus/watch (events, compacted, reset, behind), each
// with the cursor to go on at, here or at any other node, and a tick when there is
// nothing to say. The last one is cut, with the reason. A watcher that does not
// read is hung up on after 10 s. Over the control socket the token may be empty.
//
// Close codes: 4401 not (or no longer) authenticated, 4403 may not read, 4408
// auth or watch came too late, 1008 a message that the protocol does not allow,
// 1009 a message over 16 KB, 1013 too slow, 1001 the node stops.
//
// Imported by the gateway only.
package ws
