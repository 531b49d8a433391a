//! The VSS service in a guest: plugged in, loaded, spoken to, disturbed.

use super::{Guest, Pending};
use crate::error::{BedError, BedResult};
use crate::host::Host;
use crate::proto::Call;

impl Guest {
    /// Plugs in the VSS service: the stand-in bus, the genuine hv_utils, the host's relay.
    ///
    /// # Errors
    /// A module does not load.
    pub fn plug_in(&self) -> BedResult<()> {
        self.plug_in_with("")
    }

    /// As [`Self::plug_in`], with parameters of the stand-in bus.
    ///
    /// # Errors
    /// A module does not load.
    pub fn plug_in_with(&self, parameters: &str) -> BedResult<()> {
        self.load("hv_vmbus", parameters)?;
        self.load("hv_utils", "")?;
        self.connect_host()
    }

    /// Loads one of the service's modules: `hv_vmbus` is the stand-in bus, `hv_utils` the driver.
    ///
    /// # Errors
    /// It does not load.
    pub fn load(&self, module: &str, parameters: &str) -> BedResult<()> {
        self.call(Call::LoadModule {
            path: format!("{}/{module}.ko", self.modules),
            parameters: parameters.into(),
        })?;
        Ok(())
    }

    /// Lets the host speak to a service that was plugged in from power-on.
    ///
    /// # Errors
    /// There is no such service.
    pub fn connect_host(&self) -> BedResult<()> {
        self.call(Call::Relay)?;
        Ok(())
    }

    /// The Hyper-V host.
    ///
    /// # Errors
    /// None while the guest lives.
    pub fn host(&mut self) -> BedResult<&mut Host> {
        self.host
            .as_mut()
            .ok_or_else(|| BedError::Setup("the host's port is gone".into()))
    }

    /// The host does something to the service: `probe`, `remove`, `suspend`, `resume`.
    /// Returns at once; the driver may wait for the agent.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn host_does(&self, word: &str) -> BedResult<Pending> {
        self.control.start(Call::VmbusControl { word: word.into() })
    }
}
