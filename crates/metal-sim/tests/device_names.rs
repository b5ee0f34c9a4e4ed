//! Devices by name.

use metal_sim::{Device, Error};

#[test]
fn names_are_those_of_devices_that_are_there() {
    for name in ["", "cpu"] {
        let device = Device::named(name, 3).expect("the software device is always there");
        assert_eq!(device.name(), "software Metal device (3 threads)");
        assert!(!device.is_gpu());
    }
    let error = Device::named("metal", 1).err().expect("is no device");
    assert!(matches!(&error, Error::DeviceName { name } if name == "metal"), "{error}");
    if !cfg!(feature = "cuda") {
        let error = Device::named("cuda", 1).err().expect("is not built in");
        assert_eq!(error.to_string(), "NVIDIA GPU: metal-sim was built without its feature cuda");
    }
}
