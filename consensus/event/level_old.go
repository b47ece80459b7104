//go:build skein_oldevents

package event

// Level of this build: it stands for one that is a release older, to test what
// such a build does. Its catalogue lacks every type above.
const Level uint64 = 1
