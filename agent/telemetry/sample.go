package telemetry

// Sample is one look at the machine. It is data of kind "own" (this machine's
// sensors), shared with those who look. It never becomes an event.
//
// A nil pointer means that the machine has no such source. The plain numbers
// are 0 only when the machine says 0, or in the first sample after start for
// those that are differences of two looks (CPU and network).
type Sample struct {
	// CPUPercent is the busy share of all processors since the sample before, 0 to 100.
	CPUPercent float64 `json:"cpuPercent"`
	// MemUsedBytes is what is neither free nor reclaimable (MemTotal − MemAvailable).
	MemUsedBytes  uint64 `json:"memUsedBytes"`
	MemTotalBytes uint64 `json:"memTotalBytes"`
	// Disk figures are of the file system that holds the data directory.
	DiskUsedBytes  uint64 `json:"diskUsedBytes"`
	DiskTotalBytes uint64 `json:"diskTotalBytes"`
	// TemperatureC is the hottest processor or board sensor, in °C.
	TemperatureC *float64 `json:"temperatureC"`
	// BatteryPercent is the charge, 0 to 100; with several batteries their mean.
	BatteryPercent *float64 `json:"batteryPercent"`
	// Network rates are sums over all interfaces but loopback, since the sample before.
	NetRxBytesPerSec float64 `json:"netRxBytesPerSec"`
	NetTxBytesPerSec float64 `json:"netTxBytesPerSec"`
	// UptimeSeconds is the machine's, not the process's.
	UptimeSeconds float64 `json:"uptimeSeconds"`
	// Load1 is the load average of the last minute.
	Load1 float64 `json:"load1"`
}
