package rig

var (
	FileSystemIn  = fileSystem
	MachineTimeIn = machineTime
	WrkResultIn   = wrkResult
)
