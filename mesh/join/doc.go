// Package join is the protocol by which a robot asks to become a member:
// "/skein/join/1", the only one that is open to strangers.
//
// # Order of messages
//
//	client                           server (any member)
//	        ←  challenge: nonce, its certificate chain, fleet, clock
//	request →                        only if the chain leads to the right root
//	        ←  answer: grant or refusal
//
// The client knows the fleet's root key from its fleet file or token. It checks
// the server's chain against it, and the chain's holder against the key that
// Noise has proven, before it sends anything: a server in the middle, or of
// another fleet, learns nothing. It also compares clocks first, because a robot
// whose clock is off would be admitted and then confuse people and tokens.
//
// What proves the right to join is a signature with the fleet file's enrolment
// key over the server's fresh nonce and the robot's own key and name, so that
// nobody can use it again; or the secret of a one-time token, which is sent
// inside the encrypted stream to a verified member only.
//
// Who decides is the Authority: the leader, possibly by way of the member that
// was asked. Refusals travel as code, message and what to do next.
//
// Limits: one request a stream; a few KiB a message; 5 s for each read and 15 s
// for the decision. The link layer bounds bytes, rate and number of streams.
//
// Imported by the composer and by what decides admissions.
package join
