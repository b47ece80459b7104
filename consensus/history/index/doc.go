// Package index finds events in a file by stream, type, actor and time, without
// reading the file.
//
// It knows of a file of events only what its caller says: where each event lies
// ([Memory.Add]) and what tells this file and its content from all others
// ([Source]). What else is in the file, how it is written and who may drop it
// are the caller's.
//
// Events of one file are named by their position in it, from 0. While the file
// grows its index is a [Memory]. When it has its last event the index becomes a
// [File] beside it. That is derived and not synced: whatever is wrong with it, it
// is made anew by the question that finds out, with the caller's function that
// reads the file. So a question fails only if that does, and says whether the
// index had to be made.
//
// A question is put with a [Reader], to one index after another. What passes a
// [Filter] by an index is exactly what [Filter.Matches] says of the events.
//
// Any number of questions may run at once, also while one goroutine adds to a
// Memory that they have a copy of. One index at a time is made anew for all
// readers of one [Readers].
//
// Bounds: a file has less than 4 GiB and at most 4,194,304 events. In memory are,
// for each File that was asked, at most 4 KiB of its sieve; for a Memory about 40
// bytes an event and its names; for a Reader that is not in use at most 1 MiB. A
// question may read the lists of its names and the column of times: at most 20
// bytes an event.
//
// Only consensus/history asks and makes indexes; consensus/replica hands filters on.
package index
