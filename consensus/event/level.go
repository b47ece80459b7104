//go:build !skein_oldevents

package event

// Level is the newest level of event types that this build knows. A type has the
// level of the release that brought it; the fleet's ceiling says up to which
// level types may be proposed, so that every voter knows what it decides on.
const Level uint64 = 2
