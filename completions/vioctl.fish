# fish completion of vioctl (generated: npm run gen)
complete -c vioctl -n __fish_use_subcommand -f -a vfio -d 'bind PCI devices to VFIO, inspect and drive them'
complete -c vioctl -n __fish_use_subcommand -f -a dma -d 'map memory for a device\'s DMA'
complete -c vioctl -n __fish_use_subcommand -f -a uring -d 'registered files and bulk file work on io_uring'
complete -c vioctl -n __fish_use_subcommand -f -a nvmf -d 'serve and use NVMe over TCP'
complete -c vioctl -n __fish_use_subcommand -f -a vhost-user -d 'look into and serve vhost-user back-ends'
complete -c vioctl -n __fish_use_subcommand -f -a migration -d 'read QEMU migration and save files'
