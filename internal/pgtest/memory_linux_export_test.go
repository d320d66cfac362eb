package pgtest

var MemoryDir = memoryDir
