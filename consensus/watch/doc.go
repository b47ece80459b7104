// Package watch lets many watch a node's log: each gives a cursor and gets
// frames. It knows nothing of connections; the WebSocket server is one that
// uses it.
//
// Order. A Watcher gives the events after its cursor that pass its filter, in
// the order of seq, each once. Where that is not possible it says so with a
// frame of its own, before anything else:
//   - Compacted: events after the cursor are not held here; it goes on with the
//     first that is.
//   - Reset: the fleet has another history than the cursor's, or another past.
//     Kept tells whether what was seen is part of it.
//   - Behind: this node has not come to the cursor yet. It never goes back: it
//     waits, and says again how far it is.
//   - Cut: the last frame. The watcher was too slow, or the node stops. The
//     cursor is where another Watch, here or elsewhere, goes on.
//
// Every frame has the cursor after it, hash included (but after Compacted), so
// that a watcher which has kept its last frame can go on at any node.
//
// Cost. One goroutine reads the newest records once for all watchers, and only
// while there are some; they share a ring of at most 4 MB. Who is further behind
// reads the history at its own pace. A watcher has no buffer and no goroutine:
// its owner pulls.
//
// Backpressure. Nobody is waited for. One that was at the present and has fallen
// back by more than 65,536 events is cut.
//
// The package imports consensus/event, history and replica (for the filter).
// Faces import it.
package watch
