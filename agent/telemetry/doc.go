// Package telemetry reads this machine's sensors from /proc and /sys and says
// when the news is worth sending.
//
// Reader takes one Sample at a time; Significant is the pure rule for what is
// worth telling; Sampler is the loop: every 2 s while somebody looks, every
// 30 s else, so that an idle robot spends nothing on a picture nobody sees.
//
// A source the machine does not have stays nil: this package never invents a
// value. A source that fails (a damaged file, a driver that answers EIO) is
// left out of that sample and reported once.
//
// Reader is not safe for concurrent use; Sampler owns one. The package knows
// nothing of the network: the composer hands it a publish function. Anyone may
// import Sample; only the composer runs a Sampler.
package telemetry
