// Package keyring keeps the keys that encrypt gossip: on disk, in memory for
// whoever watches them, and over protocol "/skein/keys/1" for a member that was
// away when they changed.
//
// Keys are numbered by epoch. The replicated log decides which epoch is
// current; it never holds a key. The log's leader makes the keys of a new epoch
// (NewEpoch), every other node fetches them (Fetch) from any member that has
// them. The epoch in a ring only ever rises, so a peer that is behind cannot
// put an old key back.
//
// Order of use: Open once at start; Set when keys of a higher epoch arrive;
// whoever encrypts with them loops over Changed and Current; Retire when the
// previous keys are no longer accepted.
//
// Limits: MaxPrevious older keys, 4 KiB on the wire, 5 s for one exchange. The
// package checks no membership: the link layer serves the protocol to admitted
// nodes only. Keys never print: not with fmt, not with slog.
//
// Imported by mesh/member, mesh/join and the composer.
package keyring
