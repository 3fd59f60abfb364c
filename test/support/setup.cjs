// Tests see the program as a script does: no colours, no inherited debugging, no stray certificates at start-up.
for (const name of ['FORCE_COLOR', 'NO_COLOR', 'VIOCTL_DEBUG', 'VIOCTL_SYSROOT', 'NODE_EXTRA_CA_CERTS']) delete process.env[name];
